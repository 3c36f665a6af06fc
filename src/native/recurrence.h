// Along time: the linear scan, the RG-LRU, attention of a few queries over a ring.
#pragma once

#include "griffin.h"

namespace griffin {

constexpr Index kChannels = 1280;  // of a task at most: what it keeps of them fits the first cache
constexpr Index kFewChannels = 128;  // at least: shorter runs, each on a page of its own, are slow

// h_t = a_t h_{t-1} + x_t, all (B, T, R) fp32, h0 (B, R); where a_t = 0 nothing of h_{t-1} is left.
// reverse: from the last step to the first. Rows and channels of a task: row b, [r0, r1).
struct ScanProblem {
  const float *x, *a, *h0;
  float* hs;
  Index batch, steps, width;
  bool reverse;
};

// The gradient at every input of a scan, given g at hs: dx, da (B, T, R), d_h0 (B, R).
struct ScanGradient {
  const float* g;
  float *dx, *da, *d_h0;
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

// Queries of new tokens over a ring of the last `slots` keys and values, and the new ones; see
// griffin_lm/ops/attention. q, out (B, T, H, D); k, v (B, T, K, D); rings (B, N, K, D), all bf16 or
// all fp32. read (B): tokens before this call; seen (B, T): earlier tokens a query sees, at most N.
struct AttentionProblem {
  const void *q, *k, *v, *ring_k, *ring_v;
  void* out;
  bool fp32;
  const int64_t *read, *seen;
  Index batch, steps, heads, kv_heads, width, slots;
};

// Queries [t0, t1) of row b, heads [h0, h1) of one key head.
struct AttentionTask {
  Index b, t0, t1, h0, h1;
};

// Every row and every run of channels is a task of its own: body(b, r0, r1).
template <class F>
void for_channels(Index batch, Index width, int threads, const F& body) {
  // rows may be tasks enough; otherwise a row is cut, into multiples of 64
  const Index cuts = batch < threads ? (threads + batch - 1) / batch : 1;
  Index each = ((width + cuts - 1) / cuts + 63) / 64 * 64;
  each = each < kFewChannels ? kFewChannels : each > kChannels ? kChannels : each;
  const Index parts = (width + each - 1) / each;
  for_each(batch * parts, threads, [&](Index task) {
    const Index r0 = task % parts * each;
    body(task / parts, r0, r0 + each < width ? r0 + each : width);
  });
}

// Attention is plain C++, one query a task, or AVX2, many at a time: also where there is more.
namespace plain {
void attend(const AttentionProblem&, const AttentionTask&);
}
namespace avx2_kernels {
void attend(const AttentionProblem&, const AttentionTask&);
}

}  // namespace griffin
