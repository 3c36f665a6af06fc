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

// The variant for the instruction set in use; see each_isa.inl.
template <class F>
F pick(F on_any, F on_avx2, F on_avx512) {
  const Kernels* chosen = &selected();
  if (chosen == avx512() || chosen == amx()) return on_avx512;
  return chosen == avx2() ? on_avx2 : on_any;
}
}
