// Which functions may use which instructions. Headers are included before, so that no inline
// function of theirs is compiled for a machine that may not run it.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__)
#define GRIFFIN_X86 1
#include <immintrin.h>

#define GRIFFIN_TEXT_(x) #x
#define GRIFFIN_TEXT(x) GRIFFIN_TEXT_(x)
#if defined(__clang__)
#define GRIFFIN_BEGIN(isa) \
  _Pragma(GRIFFIN_TEXT(clang attribute push(__attribute__((target(isa))), apply_to = function)))
#define GRIFFIN_END _Pragma("clang attribute pop")
#else
#define GRIFFIN_BEGIN(isa) _Pragma("GCC push_options") _Pragma(GRIFFIN_TEXT(GCC target(isa)))
#define GRIFFIN_END _Pragma("GCC pop_options")
#endif

// Of a loop over sums in registers: where GCC does not unroll it whole, the sums lie in memory.
#define GRIFFIN_UNROLL _Pragma("GCC unroll 8")

#define GRIFFIN_AVX512 "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx512bf16,avx2,fma"
#define GRIFFIN_AMX GRIFFIN_AVX512 ",amx-tile,amx-bf16,amx-int8"
#define GRIFFIN_PICK(function) \
  griffin::pick(on_any::function, on_avx2::function, on_avx512::function)
#else
#define GRIFFIN_X86 0
#define GRIFFIN_PICK(function) on_any::function
#endif
