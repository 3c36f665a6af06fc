// Attention over a window by AVX2, for any number of queries.
//
// What a query gets depends on the keys it sees, in their order, and on nothing else: scores are
// dot products of one order; their maximum has none; exponentials are added in eight lanes that
// begin at the first key seen; values are added key after key. So neither chunks nor batches nor
// the place of a document in a row change a bit, and a key that isn't seen can't poison one.
#include <algorithm>
#include <cmath>
#include <vector>

#include "avx2.h"
#include "recurrence.h"
#include "select.h"

namespace griffin {
#if GRIFFIN_X86
namespace avx2_kernels {
GRIFFIN_BEGIN(GRIFFIN_AVX2)
namespace {
#include "avx2_tile.h"

constexpr Index kKeys = 64;  // keys, or values, that are widened at a time
constexpr int kHeads = 6;    // rows of the inner loop over values

// e^z for z in [-87, 0], as in recurrence.inl.
inline __m256 exponential(__m256 z) {
  const __m256 magic = _mm256_set1_ps(12582912.0f);
  const __m256 shifted = _mm256_fmadd_ps(z, _mm256_set1_ps(1.44269504f), magic);
  const __m256 n = _mm256_sub_ps(shifted, magic);
  __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693145752f), z);
  r = _mm256_fnmadd_ps(n, _mm256_set1_ps(1.42860677e-6f), r);
  __m256 p = _mm256_set1_ps(1.0f / 5040);
  for (float c : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f})
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(c));
  p = _mm256_fmadd_ps(_mm256_mul_ps(p, r), r, r);
  __m256i bits = _mm256_sub_epi32(_mm256_castps_si256(shifted), _mm256_castps_si256(magic));
  bits = _mm256_slli_epi32(_mm256_add_epi32(bits, _mm256_set1_epi32(127)), 23);
  const __m256 scale = _mm256_castsi256_ps(bits);
  return _mm256_fmadd_ps(scale, p, scale);
}

// Scores to exponentials of what they are below the largest; returns their sum. Room for 8 more.
inline float exponentials(float* s, Index count) {
  float largest = s[0];
  Index j = 0;
  if (count >= 8) {
    __m256 top = _mm256_loadu_ps(s);
    for (; j + 8 <= count; j += 8) top = _mm256_max_ps(_mm256_loadu_ps(s + j), top);
    float tops[8];
    _mm256_storeu_ps(tops, top);
    for (float each : tops) largest = each > largest ? each : largest;
  }
  for (; j < count; ++j) largest = s[j] > largest ? s[j] : largest;
  const __m256 top = _mm256_set1_ps(largest), least = _mm256_set1_ps(-87.0f);
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  __m256 total = _mm256_setzero_ps();
  for (j = 0; j < count; j += 8) {
    // max returns its second operand where one is NaN: it stays
    __m256 e = _mm256_max_ps(least, _mm256_sub_ps(_mm256_loadu_ps(s + j), top));
    const __m256i here = _mm256_cmpgt_epi32(_mm256_set1_epi32(int(count - j)), lanes);
    e = _mm256_and_ps(exponential(e), _mm256_castsi256_ps(here));
    total = _mm256_add_ps(total, e);
    _mm256_maskstore_ps(s + j, here, e);
  }
  return _mm_cvtss_f32(lanes_added(total, total, total, total));
}

// sums (Rows, 16) += shares (Rows, count) times values (count, 16), one value after another.
template <int Rows>
inline void add_values(const float* shares, Index room, const float* v, Index count, float* sums,
                       Index width) {
  __m256 acc[Rows][2];
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < 2; ++i) acc[r][i] = _mm256_loadu_ps(sums + r * width + 8 * i);
  for (Index j = 0; j < count; ++j) {
    const __m256 a = _mm256_load_ps(v + 16 * j), b = _mm256_load_ps(v + 16 * j + 8);
    for (int r = 0; r < Rows; ++r) {
      const __m256 share = _mm256_broadcast_ss(shares + r * room + j);
      acc[r][0] = _mm256_fmadd_ps(share, a, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(share, b, acc[r][1]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < 2; ++i) _mm256_storeu_ps(sums + r * width + 8 * i, acc[r][i]);
}

using AddValues = void (*)(const float*, Index, const float*, Index, float*, Index);
template <int Rows>
void add_values_of(const float* shares, Index room, const float* v, Index count, float* sums,
                   Index width) {
  add_values<Rows>(shares, room, v, count, sums, width);
}
const AddValues kAddValues[kHeads] = {add_values_of<1>, add_values_of<2>, add_values_of<3>,
                                      add_values_of<4>, add_values_of<5>, add_values_of<6>};

inline __m256 eight(const float* v) { return _mm256_loadu_ps(v); }
inline __m256 eight(const bf16* v) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)v));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
inline void put(float* to, float value) { *to = value; }
inline void put(bf16* to, float value) { *to = to_bf16(value); }

struct Memory {  // of one thread, reused
  std::vector<float> queries, scores, sums, totals;
  std::vector<char> block;
};

template <class Real>
struct Attention {
  const AttentionProblem& p;
  const AttentionTask& task;
  Memory& memory;
  Index heads, rows, width, lo, hi, room;

  Attention(const AttentionProblem& p, const AttentionTask& task, Memory& memory)
      : p(p), task(task), memory(memory), heads(task.h1 - task.h0),
        rows((task.t1 - task.t0) * heads), width((p.width + kStep - 1) / kStep * kStep) {
    lo = first(task.t0), hi = p.read[task.b] + task.t1;
    for (Index t = task.t0; t < task.t1; ++t) lo = std::min(lo, first(t));
    room = (hi - lo + 3) / 4 * 4 + 8;
    memory.queries.resize(size_t(rows * width));
    memory.scores.resize(size_t(rows * room));
    memory.sums.assign(size_t(rows * width), 0.0f);
    memory.totals.resize(size_t(rows));
    memory.block.resize(size_t(kKeys * width * 4 + 64));
  }

  Index first(Index t) const { return p.read[task.b] + t - p.seen[task.b * p.steps + t]; }

  float* block() {  // aligned
    return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.block.data()) + 63) & ~63ull);
  }

  // A key's number -> its row: older ones in the ring, those of this call in k and v.
  const Real* row(const void* ring, const void* fresh, Index number) const {
    const Index before = p.read[task.b], kv = task.h0 / (p.heads / p.kv_heads);
    const Index at = number < before ? task.b * p.slots + number % p.slots
                                     : task.b * p.steps + number - before;
    return static_cast<const Real*>(number < before ? ring : fresh) +
           (at * p.kv_heads + kv) * p.width;
  }

  void spread_queries() {
    const __m256 scale = _mm256_set1_ps(1.0f / std::sqrt(float(p.width)));
    for (Index r = 0; r < rows; r += kGroup3) {
      const Index count = std::min<Index>(kGroup3, rows - r);
      float* to = memory.queries.data() + r * width;
      for (Index i = 0; i < count; ++i) {  // rows of a group needn't be of one query
        const Index t = task.t0 + (r + i) / heads, h = task.h0 + (r + i) % heads;
        const Real* q = static_cast<const Real*>(p.q);
        spread_row(q + ((task.b * p.steps + t) * p.heads + h) * p.width, p.width, count, i, to);
      }
      for (Index i = 0; i < count * width; i += 8)
        _mm256_storeu_ps(to + i, _mm256_mul_ps(_mm256_loadu_ps(to + i), scale));
    }
  }

  // What serves a single query better, or null.
  const OneQuery* one_query() const {
    const bool can = sizeof(Real) == 2 && task.t1 - task.t0 == 1 && p.width == width;
    return can ? selected().one_query : nullptr;
  }

  // body(from, to, rows of the ring or of this call) for every block of keys or values.
  template <class Body>
  void each_block(const void* ring, const void* fresh, const Body& body) const {
    const bf16* rows[kKeys];
    const bf16* next = nullptr;
    // a row follows the one before, but where the ring ends and where this call's own begin
    Index slot = lo % p.slots;
    for (Index from = lo; from < hi; from += kKeys) {
      const Index to = std::min(from + kKeys, hi);
      for (Index j = from; j < to; ++j, ++slot, next += p.kv_heads * p.width) {
        if (slot == p.slots) slot = 0, next = nullptr;
        if (!next || j == p.read[task.b]) next = reinterpret_cast<const bf16*>(row(ring, fresh, j));
        rows[j - from] = next;
      }
      body(from, to, rows);
    }
  }

  void score(const OneQuery& one) {
    each_block(p.ring_k, p.k, [&](Index from, Index to, const bf16* const* keys) {
      one.scores(keys, to - from, memory.queries.data(), rows, width,
                 memory.scores.data() + (from - lo), room);
    });
  }

  void add(const OneQuery& one) {
    each_block(p.ring_v, p.v, [&](Index from, Index to, const bf16* const* values) {
      one.add(values, to - from, memory.scores.data() + (from - lo), room, rows, width,
              memory.sums.data());
    });
  }

  void score() {
    float* wide = block();
    for (Index from = lo; from < hi; from += kKeys) {
      const Index to = std::min(from + kKeys, hi);
      for (Index j = from; j < to; j += 4) {
        const Real* keys[4];
        for (Index c = 0; c < 4; ++c) keys[c] = row(p.ring_k, p.k, std::min(j + c, hi - 1));
        widen(keys, 0, p.width, wide + (j - from) * width);
      }
      for (Index pair = from; pair < to; pair += 8)
        for (Index r = 0; r < rows; r += kGroup3) {
          const float* q = memory.queries.data() + r * width;
          for (Index j = pair; j < std::min(pair + 8, to); j += 4) {
            const float* keys = wide + (j - from) * width;
            float* out = memory.scores.data() + r * room + (j - lo);
            if (rows - r >= 3) many<3>(q, keys, width / 8, out, room, true);
            else if (rows - r == 2) many<2>(q, keys, width / 8, out, room, true);
            else many<1>(q, keys, width / 8, out, room, true);
          }
        }
    }
  }

  // Values (to - from, D) as runs of 16 columns: (D / 16, keys, 16).
  void widen_values(Index from, Index to, float* wide) const {
    for (Index j = from; j < to; ++j) {
      const Real* v = row(p.ring_v, p.v, j);
      for (Index d = 0; d < width; d += kStep) {
        Real copy[kStep] = {};
        const Real* at = v + d;
        if (p.width - d < kStep) {
          std::memcpy(copy, at, size_t(p.width - d) * sizeof(Real));
          at = copy;
        }
        float* here = wide + d * kKeys + (j - from) * kStep;
        _mm256_store_ps(here, eight(at));
        _mm256_store_ps(here + 8, eight(at + 8));
      }
    }
  }

  void add() {
    const Index groups = (heads + kHeads - 1) / kHeads, each = (heads + groups - 1) / groups;
    for (Index from = lo; from < hi; from += kKeys) {
      const Index to = std::min(from + kKeys, hi);
      widen_values(from, to, block());
      for (Index d = 0; d < width; d += kStep)
        for (Index t = task.t0; t < task.t1; ++t) {
          const Index begin = std::max(from, first(t));
          const Index end = std::min(to, p.read[task.b] + t + 1);
          if (begin >= end) continue;
          const float* v = block() + d * kKeys + (begin - from) * kStep;
          for (Index h = 0; h < heads; h += each) {
            const Index r = (t - task.t0) * heads + h;
            kAddValues[std::min(each, heads - h) - 1](
                memory.scores.data() + r * room + (begin - lo), room, v, end - begin,
                memory.sums.data() + r * width + d, width);
          }
        }
    }
  }

  void run() {
    const OneQuery* one = one_query();
    spread_queries();
    if (one) score(*one);
    else score();
    for (Index r = 0; r < rows; ++r) {
      const Index t = task.t0 + r / heads, begin = first(t);
      memory.totals[size_t(r)] = exponentials(memory.scores.data() + r * room + (begin - lo),
                                              p.read[task.b] + t + 1 - begin);
    }
    if (one) add(*one);
    else add();
    for (Index r = 0; r < rows; ++r) {
      const Index t = task.t0 + r / heads, h = task.h0 + r % heads;
      Real* out = static_cast<Real*>(p.out) + ((task.b * p.steps + t) * p.heads + h) * p.width;
      const float* sums = memory.sums.data() + r * width;
      for (Index d = 0; d < p.width; ++d) put(out + d, sums[d] / memory.totals[size_t(r)]);
    }
  }
};
}  // namespace

void attend(const AttentionProblem& p, const AttentionTask& task) {
  static thread_local Memory memory;
  if (p.fp32) Attention<float>(p, task, memory).run();
  else Attention<bf16>(p, task, memory).run();
}
GRIFFIN_END
}  // namespace avx2_kernels
#endif
}  // namespace griffin
