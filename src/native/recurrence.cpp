// The scan and the RG-LRU, for every instruction set, and as a caller asks for them.
#include "recurrence.h"

#include <cmath>

#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
#define GRIFFIN_LOOPS "recurrence.inl"
#include "each_isa.inl"
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
EXPORT void griffin_scan(const float* x, const float* a, const float* h0, float* hs, Index batch,
                         Index steps, Index width, int reverse, int threads) {
  const ScanProblem p{x, a, h0, hs, batch, steps, width, reverse != 0};
  const auto run = GRIFFIN_PICK(scan);
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { run(p, b, r0, r1); });
}

EXPORT void griffin_scan_backward(const float* a, const float* h0, const float* hs, const float* g,
                                  float* dx, float* da, float* d_h0, Index batch, Index steps,
                                  Index width, int threads) {
  const ScanProblem p{nullptr, a, h0, const_cast<float*>(hs), batch, steps, width, true};
  const ScanGradient d{g, dx, da, d_h0};
  const auto run = GRIFFIN_PICK(scan_backward);
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { run(p, d, b, r0, r1); });
}

EXPORT void griffin_rg_lru(const void* x, const void* r, const void* i, int wide,
                           const float* rate, const uint8_t* starts, const float* h0, float* hs,
                           Index batch, Index steps, Index width, int threads) {
  const RgLruProblem p{x, r, i, wide != 0, rate, starts, h0, hs, batch, steps, width};
  const auto run = GRIFFIN_PICK(rg_lru);
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { run(p, b, r0, r1); });
}

EXPORT void griffin_rg_lru_backward(const void* x, const void* r, const void* i, int wide,
                                    const float* rate, const uint8_t* starts, const float* h0,
                                    const float* hs, const float* g, void* dx, void* dr, void* di,
                                    float* d_rate, float* d_h0, Index batch, Index steps,
                                    Index width, int threads) {
  const RgLruProblem p{x, r, i, wide != 0, rate, starts, h0, const_cast<float*>(hs), batch, steps,
                       width};
  const RgLruGradient d{g, dx, dr, di, d_rate, d_h0};
  const auto run = GRIFFIN_PICK(rg_lru_backward);
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { run(p, d, b, r0, r1); });
}
}
