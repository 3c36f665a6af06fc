// Attention over a window: in plain C++, and as a caller asks for it.
#include <algorithm>
#include <cmath>
#include <vector>

#include "recurrence.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace plain {
namespace {
#include "elementary.inl"

constexpr Index kLane = 32;

template <class Real>
inline float dot(const float* q, const Real* k, Index width) {
  float sums[kLane] = {};
  Index d = 0;
  for (; d + kLane <= width; d += kLane)
    for (Index l = 0; l < kLane; ++l) sums[l] += q[d + l] * read(k, d + l);
  for (Index l = 0; d < width; ++d, ++l) sums[l] += q[d] * read(k, d);
  for (Index half = kLane / 2; half; half /= 2)
    for (Index l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

// One query, some heads; the order of additions depends on the keys seen, on nothing else.
template <class Real>
void attend_as(const AttentionProblem& p, Index b, Index t, Index h0, Index h1) {
  static thread_local std::vector<float> scores, wide;
  const Index width = p.width, now = p.read[b] + t, first = now - p.seen[b * p.steps + t];
  const Index count = now - first + 1, shared = p.heads / p.kv_heads, kv = h0 / shared;
  scores.resize(size_t((h1 - h0) * count));
  wide.resize(size_t(2 * (h1 - h0) * width));
  const Real* q = static_cast<const Real*>(p.q) + ((b * p.steps + t) * p.heads) * width;
  float* sums = wide.data() + (h1 - h0) * width;
  const float scale = 1.0f / std::sqrt(float(width));
  for (Index h = h0; h < h1; ++h)
    for (Index d = 0; d < width; ++d) {
      wide[size_t((h - h0) * width + d)] = read(q, h * width + d) * scale;
      sums[(h - h0) * width + d] = 0;
    }
  // a key's number -> its row: older ones in the ring, those of this call in k and v
  const auto row = [&](const void* ring, const void* fresh, Index number) {
    const Index before = p.read[b];
    const Index at = number < before ? (b * p.slots + number % p.slots)
                                     : (b * p.steps + number - before);
    return static_cast<const Real*>(number < before ? ring : fresh) +
           (at * p.kv_heads + kv) * width;
  };
  for (Index j = 0; j < count; ++j) {
    const Real* k = row(p.ring_k, p.k, first + j);
    for (Index h = 0; h < h1 - h0; ++h)
      scores[size_t(h * count + j)] = dot(wide.data() + h * width, k, width);
  }
  for (Index h = 0; h < h1 - h0; ++h) {
    float* s = scores.data() + h * count;
    float largest = s[0], total = 0;
    for (Index j = 1; j < count; ++j) largest = s[j] > largest ? s[j] : largest;
    for (Index j = 0; j < count; ++j) {
      float unused, whole, z = s[j] - largest;
      z = z < -87.0f ? -87.0f : z;
      exponential(z, unused, whole);
      s[j] = whole;
    }
    for (Index j = 0; j < count; ++j) total += s[j];
    for (Index j = 0; j < count; ++j) s[j] /= total;
  }
  for (Index j = 0; j < count; ++j) {
    const Real* v = row(p.ring_v, p.v, first + j);
    for (Index h = 0; h < h1 - h0; ++h) {
      const float share = scores[size_t(h * count + j)];
      float* sum = sums + h * width;
      GRIFFIN_INDEPENDENT
      for (Index d = 0; d < width; ++d) sum[d] += share * read(v, d);
    }
  }
  Real* out = static_cast<Real*>(p.out) + ((b * p.steps + t) * p.heads) * width;
  for (Index h = h0; h < h1; ++h)
    for (Index d = 0; d < width; ++d) write(out, h * width + d, sums[(h - h0) * width + d]);
}
}  // namespace

void attend(const AttentionProblem& p, const AttentionTask& task) {
  for (Index t = task.t0; t < task.t1; ++t)
    if (p.fp32) attend_as<float>(p, task.b, t, task.h0, task.h1);
    else attend_as<bf16>(p, task.b, t, task.h0, task.h1);
}
}  // namespace plain
}  // namespace griffin

using namespace griffin;

extern "C" {
EXPORT void griffin_ring_attention(const void* q, const void* k, const void* v, const void* ring_k,
                                   const void* ring_v, int wide, const int64_t* read,
                                   const int64_t* seen, void* out, Index batch, Index steps,
                                   Index heads, Index kv_heads, Index width, Index slots,
                                   int threads) {
  const AttentionProblem p{q,    k,    v,     ring_k, ring_v,   out,   wide != 0,
                           read, seen, batch, steps,  heads,    kv_heads, width, slots};
  auto* attend = plain::attend;
  constexpr Index kTogether = 96;  // queries times heads: for so many, widening the keys is cheap
  const Index shared = heads / kv_heads;
  Index each_t = 1;
#if GRIFFIN_X86
  if (selected().spread_wide) {
    attend = avx2_kernels::attend;
    each_t = std::max<Index>(1, kTogether / shared);
  }
#endif
  // enough tasks for every thread: each reads all the keys that its queries see
  while (each_t > 1 && batch * kv_heads * ((steps + each_t - 1) / each_t) < threads) each_t /= 2;
  const Index tiles = (steps + each_t - 1) / each_t;
  Index parts = 1;
  while (batch * tiles * kv_heads * parts < threads && parts < shared) ++parts;
  const Index each_h = (shared + parts - 1) / parts;
  for_each(batch * tiles * kv_heads * parts, threads, [&](Index task) {
    const Index part = task % parts, kv = task / parts % kv_heads;
    const Index tile = task / parts / kv_heads % tiles, b = task / parts / kv_heads / tiles;
    const Index t0 = tile * each_t, h0 = kv * shared + part * each_h;
    const Index t1 = std::min(t0 + each_t, steps), h1 = std::min((kv + 1) * shared, h0 + each_h);
    if (h0 < h1) attend(p, AttentionTask{b, t0, t1, h0, h1});
  });
}

// ring (B, N, K D), each row's first count[b] of the `steps` new entries put into their slots; rows
// of `bytes` each; at most N steps. read (B): tokens before this call.
EXPORT void griffin_write_ring(void* ring, const void* fresh, const int64_t* read,
                               const int64_t* count, Index batch, Index steps, Index slots,
                               Index bytes) {
  for (Index b = 0; b < batch; ++b)
    for (Index t = 0; t < std::min(steps, Index(count[b])); ++t)
      std::memcpy(static_cast<char*>(ring) + (b * slots + (read[b] + t) % slots) * bytes,
                  static_cast<const char*>(fresh) + (b * steps + t) * bytes, size_t(bytes));
}
}
