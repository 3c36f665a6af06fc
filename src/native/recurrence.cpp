// The scan, the RG-LRU and attention, for every instruction set, and as a caller asks for them.
#include "recurrence.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "select.h"
#include "x86.h"

namespace griffin {
namespace plain {
#include "recurrence.inl"
#include "attention.inl"
const Recurrences kAll{scan, rg_lru, rg_lru_backward, attend};
}  // namespace plain

#if GRIFFIN_X86
GRIFFIN_BEGIN("avx2,fma")
namespace wide {
#include "recurrence.inl"
#include "attention.inl"
}
GRIFFIN_END
GRIFFIN_BEGIN(GRIFFIN_AVX512 ",prefer-vector-width=512")
namespace widest {
#include "recurrence.inl"
#include "attention.inl"
}
GRIFFIN_END
namespace wide {
const Recurrences kAll{scan, rg_lru, rg_lru_backward, attend};
}
namespace widest {
const Recurrences kAll{scan, rg_lru, rg_lru_backward, attend};
}

const Recurrences& recurrences() {
  const Kernels* chosen = &selected();
  if (chosen == avx512() || chosen == amx()) return widest::kAll;
  return chosen == avx2() ? wide::kAll : plain::kAll;
}
#else
const Recurrences& recurrences() { return plain::kAll; }
#endif

namespace {
// Every row and every run of channels is a task of its own.
template <class F>
void for_channels(Index batch, Index width, int threads, const F& body) {
  const Index parts = (width + kChannels - 1) / kChannels;
  for_each(batch * parts, threads, [&](Index task) {
    const Index r0 = task % parts * kChannels;
    body(task / parts, r0, std::min(width, r0 + kChannels));
  });
}
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
EXPORT void griffin_scan(const float* x, const float* a, const float* h0, float* hs, Index batch,
                         Index steps, Index width, int reverse, int threads) {
  const ScanProblem p{x, a, h0, hs, batch, steps, width, reverse != 0};
  const Recurrences& use = recurrences();
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { use.scan(p, b, r0, r1); });
}

EXPORT void griffin_rg_lru(const void* x, const void* r, const void* i, int wide,
                           const float* rate, const uint8_t* starts, const float* h0, float* hs,
                           Index batch, Index steps, Index width, int threads) {
  const RgLruProblem p{x, r, i, wide != 0, rate, starts, h0, hs, batch, steps, width};
  const Recurrences& use = recurrences();
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { use.rg_lru(p, b, r0, r1); });
}

EXPORT void griffin_rg_lru_backward(const void* x, const void* r, const void* i, int wide,
                                    const float* rate, const uint8_t* starts, const float* h0,
                                    const float* hs, const float* g, void* dx, void* dr, void* di,
                                    float* d_rate, float* d_h0, Index batch, Index steps,
                                    Index width, int threads) {
  const RgLruProblem p{x, r, i, wide != 0, rate, starts, h0, const_cast<float*>(hs), batch, steps,
                       width};
  const RgLruGradient d{g, dx, dr, di, d_rate, d_h0};
  const Recurrences& use = recurrences();
  for_channels(batch, width, threads,
               [&](Index b, Index r0, Index r1) { use.rg_lru_backward(p, d, b, r0, r1); });
}

EXPORT void griffin_ring_attention(const void* q, const void* k, const void* v, const void* ring_k,
                                   const void* ring_v, int wide, const int64_t* read,
                                   const int64_t* seen, void* out, Index batch, Index steps,
                                   Index heads, Index kv_heads, Index width, Index slots,
                                   int threads) {
  const AttentionProblem p{q,     k,     v,        ring_k, ring_v, out,  wide != 0,
                           read,  seen,  batch,    steps,  heads,  kv_heads, width,
                           slots, slots + steps + 1};
  const Recurrences& use = recurrences();
  const Index shared = heads / kv_heads;
  // enough tasks for every thread, as few as possible: each reads all the keys
  Index parts = 1;
  while (batch * steps * kv_heads * parts < threads && parts < shared) ++parts;
  const Index each = (shared + parts - 1) / parts;
  for_each(batch * steps * kv_heads * parts, threads, [&](Index task) {
    static thread_local std::vector<float> scores, rows;
    scores.resize(size_t(each * p.room));
    rows.resize(size_t(2 * each * width));
    const Index part = task % parts, kv = task / parts % kv_heads;
    const Index t = task / parts / kv_heads % steps, b = task / parts / kv_heads / steps;
    const Index h0 = kv * shared + part * each;
    const Index h1 = std::min((kv + 1) * shared, h0 + each);
    if (h0 < h1) use.attend(p, b, t, h0, h1, scores.data(), rows.data());
  });
}
}
