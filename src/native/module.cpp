// Python imports this to find the library; everything else is called through ctypes. The limited
// API: one build serves every Python from 3.11 on.
#define Py_LIMITED_API 0x030b0000
#include <Python.h>

#include "select.h"

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "Compiled kernels; see griffin_lm.ops.native.", -1,
    NULL, NULL, NULL, NULL, NULL,
};

// A number of 64 words of 8 bytes, evenly out of `bytes`: another one where most of them changed.
extern "C" EXPORT uint64_t griffin_mark(const void* tensor, int64_t bytes) {
  const int64_t words = bytes / 8, step = words > 64 ? words / 64 : 1;
  uint64_t mark = 1469598103934665603u;  // FNV-1a
  for (int64_t i = 0; i < words; i += step) {
    uint64_t word;
    std::memcpy(&word, static_cast<const char*>(tensor) + 8 * i, 8);
    mark = (mark ^ word) * 1099511628211u;
  }
  return mark;
}

PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&definition); }
