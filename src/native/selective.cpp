// The selective scan of S6 and its gradient, for every instruction set.
#include <vector>

#include "griffin.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
// griffin_lm/ops/native/along_time.py says the same of the last three.
constexpr Index kLanes = 16;   // channels that are computed side by side
constexpr Index kRun = 64;     // channels of a task: sums over channels are made per run
constexpr Index kStates = 64;  // N at most
constexpr Index kChunk = 32;   // tokens whose states the gradient computes again at a time

// h_t = exp(delta_t A) h_{t-1} + delta_t B_t x_t, y_t = C_t h_t; see griffin_lm/ops/selective_scan.
// x, delta (B, T, E); A (E, N); B, C (B, T, N); starts (B, T); h0 (B, E, N), all fp32.
// kept: the states before every kChunk tokens, (B, chunks, E, N), or null.
struct SelectiveProblem {
  const float *x, *delta, *A, *B, *C;
  const uint8_t* starts;
  const float* h0;
  float *y, *last, *kept;
  Index batch, steps, width, states;
  Index chunks() const { return (steps + kChunk - 1) / kChunk; }
};

// The gradient at every input, given g at y and g_last at the last state. dA: per row of the batch,
// (B, E, N); dB, dC: per run of channels, (runs, B, T, N); both are summed by the caller.
struct SelectiveGradient {
  const float *g, *g_last;
  float *dx, *d_delta, *dA, *dB, *dC, *d_h0;
};

#define GRIFFIN_LOOPS "selective.inl"
#include "each_isa.inl"

// Each row and each run of channels is a task of its own: body(b, run).
template <class F>
void for_runs(Index batch, Index width, int threads, const F& body) {
  const Index runs = (width + kRun - 1) / kRun;
  for_each(batch * runs, threads, [&](Index task) { body(task / runs, task % runs); });
}
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
EXPORT void griffin_selective_scan(const float* x, const float* delta, const float* A,
                                   const float* B, const float* C, const uint8_t* starts,
                                   const float* h0, float* y, float* last, float* kept,
                                   Index batch, Index steps, Index width, Index states,
                                   int threads) {
  const SelectiveProblem p{x, delta, A, B, C, starts, h0, y, last, kept,
                           batch, steps, width, states};
  const auto run = GRIFFIN_PICK(selective_scan);
  for_runs(batch, width, threads, [&](Index b, Index part) { run(p, b, part); });
}

EXPORT void griffin_selective_scan_backward(
    const float* x, const float* delta, const float* A, const float* B, const float* C,
    const uint8_t* starts, const float* kept, const float* g, const float* g_last, float* dx,
    float* d_delta, float* dA, float* dB, float* dC, float* d_h0, Index batch, Index steps,
    Index width, Index states, int threads) {
  const SelectiveProblem p{x, delta, A, B, C, starts, nullptr, nullptr, nullptr,
                           const_cast<float*>(kept), batch, steps, width, states};
  const SelectiveGradient d{g, g_last, dx, d_delta, dA, dB, dC, d_h0};
  const auto run = GRIFFIN_PICK(selective_scan_backward);
  for_runs(batch, width, threads, [&](Index b, Index part) { run(p, d, b, part); });
}
}
