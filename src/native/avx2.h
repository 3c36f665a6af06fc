// What the AVX2 files share.
#pragma once

#include "griffin.h"
#include "x86.h"

#define GRIFFIN_AVX2 "avx2,fma"

namespace griffin {
namespace avx2_kernels {
void dense(const DenseProblem&, const Block&);
void wide(const WideProblem&, const Block&);
void int8(const Int8Problem&, const Block&);
void int4(const Int4Problem&, const Block&);
void quantize(const float* x, Index k, Index kp, int8_t* q, float* scale);
extern const OneQuery kOneQueryAvx2, kOneQueryAvx512;
extern const BandKernel kBandAvx512;
extern const Spread kSpreadDense, kSpreadWide, kSpreadInt8;

// Memory for one block's weights, widened: a thread's own, reused.
constexpr Index kTile = kColumns * 512 * 4;
char* tile();
}  // namespace avx2_kernels
}  // namespace griffin
