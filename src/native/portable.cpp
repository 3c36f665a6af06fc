// Whatever the compiler makes of plain C++ for any machine, and again for AVX2 with FMA.
#include <cmath>

#include "griffin.h"

namespace griffin {
namespace plain {
#include "linear.inl"
}
const Kernels* portable() {
  static const Kernels kernels{"portable", plain::dense, plain::int8, plain::int4,
                               plain::quantize, false};
  return &kernels;
}

#if defined(__x86_64__) && defined(__GNUC__)
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace wide {
#include "linear.inl"
}
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
const Kernels* avx2() {
  static const Kernels kernels{"avx2", wide::dense, wide::int8, wide::int4, wide::quantize, false};
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kernels : nullptr;
}
#else
const Kernels* avx2() { return nullptr; }
#endif

}  // namespace griffin
