// The linear scan and the RG-LRU: what a caller gives, and what one instruction set offers.
#pragma once

#include "griffin.h"

namespace griffin {

constexpr Index kChannels = 128;  // of a task: 512 bytes a step keep the prefetcher busy

// h_t = a_t h_{t-1} + x_t, all (B, T, R) fp32, h0 (B, R); where a_t = 0 nothing of h_{t-1} is left.
// reverse: from the last step to the first. Rows and channels of a task: row b, [r0, r1).
struct ScanProblem {
  const float *x, *a, *h0;
  float* hs;
  Index batch, steps, width;
  bool reverse;
};

// Griffin, eqs. 1-4; see griffin_lm/ops/rg_lru. x, r, i: (B, T, R), all bf16 or all fp32; r and i
// before their sigmoid; rate = c softplus(Lambda) (R); starts (B, T); h0 (B, R); hs (B, T, R) fp32.
struct RgLruProblem {
  const void *x, *r, *i;
  bool wide;  // fp32 rather than bf16
  const float* rate;
  const uint8_t* starts;
  const float* h0;
  float* hs;
  Index batch, steps, width;
};

// The gradient at every input, given g at hs; dx, dr, di in the inputs' dtype; d_rate per row of
// the batch (B, R), summed by the caller; d_h0 (B, R).
struct RgLruGradient {
  const float* g;
  void *dx, *dr, *di;
  float *d_rate, *d_h0;
};

struct Recurrences {
  void (*scan)(const ScanProblem&, Index b, Index r0, Index r1);
  void (*rg_lru)(const RgLruProblem&, Index b, Index r0, Index r1);
  void (*rg_lru_backward)(const RgLruProblem&, const RgLruGradient&, Index b, Index r0, Index r1);
};

const Recurrences& recurrences();  // of the instruction set in use

}  // namespace griffin
