// The causal depthwise conv in front of a recurrence, and its gradient.
#include <algorithm>

#include "recurrence.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
// x, out (B, T, R), past (B, C - 1, R), w (C, R), bias (R), all bf16 or all fp32; position (B, T).
struct ConvProblem {
  const void *x, *past, *w, *bias;
  void* out;
  bool wide;
  const int64_t* position;
  Index batch, steps, width, taps;
};

// g at out; dx, d_past in the inputs' kind; d_w (B, C, R) and d_bias (B, R) fp32, zeros at first.
struct ConvGradient {
  const void* g;
  void *dx, *d_past;
  float *d_w, *d_bias;
};

#define GRIFFIN_LOOPS "conv.inl"
#include "each_isa.inl"
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
EXPORT void griffin_conv(const void* x, const void* past, const void* w, const void* bias,
                         int wide, const int64_t* position, void* out, Index batch, Index steps,
                         Index width, Index taps, int threads) {
  const ConvProblem p{x, past, w, bias, out, wide != 0, position, batch, steps, width, taps};
  const auto run = GRIFFIN_PICK(conv);
  for_channels(batch, width, batch * steps < 8 ? 1 : threads,
               [&](Index b, Index r0, Index r1) { run(p, b, r0, r1); });
}

EXPORT void griffin_conv_backward(const void* x, const void* past, const void* w, int wide,
                                  const int64_t* position, const void* g, void* dx, void* d_past,
                                  float* d_w, float* d_bias, Index batch, Index steps, Index width,
                                  Index taps, int threads) {
  const ConvProblem p{x, past, w, nullptr, nullptr, wide != 0, position, batch, steps, width, taps};
  const ConvGradient d{g, dx, d_past, d_w, d_bias};
  const auto run = GRIFFIN_PICK(conv_backward);
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { run(p, d, b, r0, r1); });
}
}
