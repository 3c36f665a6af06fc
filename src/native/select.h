// The instruction set in use, and what the library shows to the outside.
#pragma once

#include "griffin.h"

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

namespace griffin {
const Kernels& selected();
}
