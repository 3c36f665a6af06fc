// Python imports this to find the library; everything else is called through ctypes. The limited
// API: one build serves every Python from 3.11 on.
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled kernels; see griffin_lm.ops.native.", -1,
    NULL, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&definition); }
