// AVX-512 with BF16 and VNNI (Zen 4 and 5, Cooper Lake).
#include <algorithm>
#include <type_traits>
#include <vector>

#include "avx2.h"
#include "griffin.h"
#include "x86.h"

namespace griffin {
#if GRIFFIN_X86
namespace {
GRIFFIN_BEGIN(GRIFFIN_AVX512)
#include "int4_vnni.h"

// Dot products along K of up to kMost rows of x with kWide of w: as many sums as fit into the
// registers. K is cut into runs of kRun bytes of a row, so that kPart rows of x stay in the first
// cache while w goes by. One order of additions for any number of rows: in a run each lane takes
// its pairs upwards, the lanes are added as a tree, the runs upwards.
constexpr Index kMost = 6, kWide = 4, kRun = 1024;
constexpr Index kPart = 18;
constexpr Index kFew = 12;  // rows of x for which rows of w are read from end to end

inline __m512 plus(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
inline __m512i plus(__m512i a, __m512i b) { return _mm512_add_epi32(a, b); }
inline __m512i bits(__m512 a) { return _mm512_castps_si512(a); }
inline __m512i bits(__m512i a) { return a; }
inline __m512 like(__m512, __m512i a) { return _mm512_castsi512_ps(a); }
inline __m512i like(__m512i, __m512i a) { return a; }
inline __m128 lanes_added(__m512 a) {
  const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
  return _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
}
inline __m128i lanes_added(__m512i a) {
  const __m256i half =
      _mm256_add_epi32(_mm512_castsi512_si256(a), _mm512_extracti32x8_epi32(a, 1));
  return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

// The sums of four vectors, in four lanes; the order is the same in each.
template <class Vector>
inline auto sums_of(Vector a, Vector b, Vector c, Vector d) {
  const Vector ab = plus(like(a, _mm512_unpacklo_epi32(bits(a), bits(b))),
                         like(a, _mm512_unpackhi_epi32(bits(a), bits(b))));
  const Vector cd = plus(like(a, _mm512_unpacklo_epi32(bits(c), bits(d))),
                         like(a, _mm512_unpackhi_epi32(bits(c), bits(d))));
  return lanes_added(plus(like(a, _mm512_unpacklo_epi64(bits(ab), bits(cd))),
                          like(a, _mm512_unpackhi_epi64(bits(ab), bits(cd)))));
}

// sum += a b, in place: of the intrinsics GCC 12 makes copies, and has no registers left for them.
inline void add(__m512& sum, __m512bh a, __m512bh b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}
inline void add(__m512i& sum, __m512i a, __m512i b) {
  __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// Rows of w that are fetched while a tile is computed, since the hardware's prefetcher ends at each
// page. There always are some: a branch in the loop, and GCC keeps the sums in memory.
struct Ahead {
  const char* from;
  Index stride;
};

// Steps along K from x and w on. mask: of the numbers in a step.
// The sums are handed from call to call: in a lambda GCC keeps them in memory.
template <int Rows, int Columns>
inline void steps(const bf16* x, Index stride, const bf16* w, Index k, Index count, __mmask32 mask,
                  Ahead ahead, __m512 (&sums)[Rows][kWide]) {
  for (Index s = 0; s < count; ++s, x += 32, w += 32) {
    __m512bh rows[Rows];
    GRIFFIN_UNROLL
    for (int r = 0; r < Rows; ++r)
      rows[r] = (__m512bh)_mm512_maskz_loadu_epi16(mask, x + r * stride);
    GRIFFIN_UNROLL
    for (int c = 0; c < Columns; ++c) {
      _mm_prefetch(ahead.from + c * ahead.stride + 64 * s, _MM_HINT_T0);
      const __m512bh weights = (__m512bh)_mm512_maskz_loadu_epi16(mask, w + c * k);
      GRIFFIN_UNROLL
      for (int r = 0; r < Rows; ++r) add(sums[r][c], rows[r], weights);
    }
  }
}

template <int Rows, int Columns>
inline void steps(const uint8_t* x, Index stride, const int8_t* w, Index k, Index count,
                  __mmask64 mask, Ahead ahead, __m512i (&sums)[Rows][kWide]) {
  for (Index s = 0; s < count; ++s, x += 64, w += 64) {
    __m512i rows[Rows];
    GRIFFIN_UNROLL
    for (int r = 0; r < Rows; ++r) rows[r] = _mm512_loadu_si512(x + r * stride);
    GRIFFIN_UNROLL
    for (int c = 0; c < Columns; ++c) {
      _mm_prefetch(ahead.from + c * ahead.stride + 64 * s, _MM_HINT_T0);
      const __m512i weights = _mm512_maskz_loadu_epi8(mask, w + c * k);
      GRIFFIN_UNROLL
      for (int r = 0; r < Rows; ++r) add(sums[r][c], rows[r], weights);
    }
  }
}

template <int Rows, int Columns>
inline void dense_tile(const DenseProblem& p, Index m, Index n, Index k0, const Ahead& ahead,
                       float* out, Index ld) {
  constexpr Index kStep = 32;
  const bf16 *x = p.x + m * p.stride + k0, *w = p.w + n * p.k + k0;
  const Index k = std::min(p.k - k0, kRun / 2), whole = k / kStep, rest = k % kStep;
  __m512 sums[Rows][kWide];
  GRIFFIN_UNROLL
  for (int r = 0; r < Rows; ++r)
    GRIFFIN_UNROLL
    for (int c = 0; c < kWide; ++c) sums[r][c] = _mm512_setzero_ps();
  steps<Rows, Columns>(x, p.stride, w, p.k, whole, ~0u, ahead, sums);
  if (rest)
    steps<Rows, Columns>(x + kStep * whole, p.stride, w + kStep * whole, p.k, 1,
                         (1u << rest) - 1, ahead, sums);
  const __mmask8 some = __mmask8((1 << Columns) - 1);
  GRIFFIN_UNROLL
  for (int r = 0; r < Rows; ++r) {
    __m128 sum = sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    if (k0) sum = _mm_add_ps(_mm_maskz_loadu_ps(some, out + r * ld), sum);
    _mm_mask_storeu_ps(out + r * ld, some, sum);
  }
}

// x: rows of q + 128 as unsigned bytes, p.kp apart, from row m on.
template <int Rows, int Columns>
inline void int8_tile(const Int8Problem& p, const uint8_t* x, Index m, Index n, Index k0,
                      const Ahead& ahead, float* out, Index ld) {
  constexpr Index kStep = 64;
  const int8_t* w = p.w + n * p.k + k0;
  const Index k = std::min(p.k - k0, kRun), whole = k / kStep, rest = k % kStep;
  __m512i sums[Rows][kWide];
  GRIFFIN_UNROLL
  for (int r = 0; r < Rows; ++r)
    GRIFFIN_UNROLL
    for (int c = 0; c < kWide; ++c) sums[r][c] = _mm512_setzero_si512();
  steps<Rows, Columns>(x + k0, p.kp, w, p.k, whole, ~0ull, ahead, sums);
  if (rest)
    steps<Rows, Columns>(x + k0 + kStep * whole, p.kp, w + kStep * whole, p.k, 1,
                         (1ull << rest) - 1, ahead, sums);
  const __mmask8 some = __mmask8((1 << Columns) - 1);
  const __m128i flipped = _mm_slli_epi32(_mm_maskz_loadu_epi32(some, p.w_sums + n), 7);
  const __m128 scale = _mm_maskz_loadu_ps(some, p.w_scale + n);
  GRIFFIN_UNROLL
  for (int r = 0; r < Rows; ++r) {
    float* at = out + r * ld;  // whole numbers until the last run is in
    __m128i sum = sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    if (k0) sum = _mm_add_epi32(_mm_maskz_loadu_epi32(some, at), sum);
    if (k0 + k < p.k) {
      _mm_mask_storeu_epi32(at, some, sum);
      continue;
    }
    const __m128 by = _mm_mul_ps(_mm_set1_ps(p.x_scale[m + r]), scale);
    const __m128 whole_sum = _mm_cvtepi32_ps(_mm_sub_epi32(sum, flipped));
    _mm_mask_storeu_ps(at, some, _mm_mul_ps(whole_sum, by));
  }
}

// The rows of a block in groups that are as equal as can be, by the columns from n on, which lie at
// `here`. The first group fetches what comes `next`.
template <int Columns, class Tile>
inline void groups(const Block& b, Index n, Index k0, const Ahead& here, const Ahead& next,
                   const Tile& tile) {
  const Index rows = b.m1 - b.m0, all = (rows + kMost - 1) / kMost;
  for (Index g = 0, m = b.m0; g < all; ++g) {
    const Index count = (b.m1 - m + all - g - 1) / (all - g);
    const Ahead& ahead = g ? here : next;
    float* out = b.out + (m - b.m0) * b.ld + (n - b.n0);
    constexpr std::integral_constant<int, Columns> c;
    switch (count) {
      case 1: tile(std::integral_constant<int, 1>{}, c, m, n, k0, ahead, out); break;
      case 2: tile(std::integral_constant<int, 2>{}, c, m, n, k0, ahead, out); break;
      case 3: tile(std::integral_constant<int, 3>{}, c, m, n, k0, ahead, out); break;
      case 4: tile(std::integral_constant<int, 4>{}, c, m, n, k0, ahead, out); break;
      case 5: tile(std::integral_constant<int, 5>{}, c, m, n, k0, ahead, out); break;
      default: tile(std::integral_constant<int, 6>{}, c, m, n, k0, ahead, out);
    }
    m += count;
  }
}

// Runs from k0 to k1, numbers of `each` a run.
template <class Real, class Tile>
inline void runs(const Block& b, const Real* w, Index k0, Index k1, Index each, Index stride,
                 const Tile& tile) {
  const Index bytes = stride * Index(sizeof(Real));
  for (Index n = b.n0; n < b.n1;) {
    const bool wide = n + kWide <= b.n1;
    for (Index k = k0; k < k1; k += each) {
      const Ahead here{(const char*)(w + n * stride + k), bytes};
      if (wide) groups<kWide>(b, n, k, here, {here.from + kWide * bytes, bytes}, tile);
      else groups<1>(b, n, k, here, {here.from + kAhead, bytes}, tile);
    }
    n += wide ? kWide : 1;
  }
}

template <class Real, class Tile>
inline void product(const Block& b, const Real* w, Index k, Index each, const Tile& tile) {
  if (b.m1 - b.m0 <= kFew) return runs(b, w, 0, k, each, k, tile);
  for (Index k0 = 0; k0 < k; k0 += each)
    for (Index m = b.m0; m < b.m1; m += kPart) {
      const Block part{m, std::min(b.m1, m + kPart), b.n0, b.n1, b.out + (m - b.m0) * b.ld, b.ld};
      runs(part, w, k0, std::min(k, k0 + each), each, k, tile);
    }
}

// `Runs` whole runs at once, so that no sum waits for its last product; added upwards all the same.
template <int Runs>
inline float runs_added(const bf16* x, const bf16* w, bool begins, float before) {
  __m512 sums[4];
  GRIFFIN_UNROLL
  for (int i = 0; i < 4; ++i) sums[i] = _mm512_setzero_ps();
  for (Index k = 0; k < kRun / 2; k += 32) {
    GRIFFIN_UNROLL
    for (int i = 0; i < Runs; ++i) {
      const Index at = kRun / 2 * i + k;
      _mm_prefetch((const char*)(w + at) + kAhead, _MM_HINT_T0);
      add(sums[i], (__m512bh)_mm512_loadu_si512(x + at), (__m512bh)_mm512_loadu_si512(w + at));
    }
  }
  alignas(16) float each[4];
  _mm_store_ps(each, sums_of(sums[0], sums[1], sums[2], sums[3]));
  float sum = begins ? each[0] : before + each[0];
  for (int i = 1; i < Runs; ++i) sum += each[i];
  return sum;
}

// One row of x: w comes from memory as one stream. The bits are those of the tiles.
void dense_single(const DenseProblem& p, const Block& b) {
  constexpr Index kEach = kRun / 2;
  const bf16* x = p.x + b.m0 * p.stride;
  for (Index n = b.n0; n < b.n1; ++n) {
    const bf16* w = p.w + n * p.k;
    float* out = b.out + (n - b.n0);
    Index k = 0;
    for (; k + 4 * kEach <= p.k; k += 4 * kEach) *out = runs_added<4>(x + k, w + k, !k, *out);
    const Index whole = (p.k - k) / kEach;
    if (whole == 3) *out = runs_added<3>(x + k, w + k, !k, *out);
    else if (whole == 2) *out = runs_added<2>(x + k, w + k, !k, *out);
    else if (whole == 1) *out = runs_added<1>(x + k, w + k, !k, *out);
    k += whole * kEach;
    if (k < p.k)
      dense_tile<1, 1>(p, b.m0, n, k, {(const char*)(w + k) + kAhead, 0}, out, b.ld);
  }
}

void dense(const DenseProblem& p, const Block& b) {
  if (b.m1 - b.m0 == 1) return dense_single(p, b);
  product(b, p.w, p.k, kRun / 2,
          [&](auto rows, auto some, Index m, Index n, Index k0, const Ahead& ahead, float* out) {
            dense_tile<rows, some>(p, m, n, k0, ahead, out, b.ld);
          });
}

// As for bf16; whole numbers may be added in any order.
void int8_single(const Int8Problem& p, const uint8_t* x, const Block& b) {
  for (Index n = b.n0; n < b.n1; ++n) {
    const int8_t* w = p.w + n * p.k;
    __m512i sums[4];
    GRIFFIN_UNROLL
    for (int i = 0; i < 4; ++i) sums[i] = _mm512_setzero_si512();
    Index k = 0;
    for (; k + 256 <= p.k; k += 256) {
      GRIFFIN_UNROLL
      for (int i = 0; i < 4; ++i) {
        _mm_prefetch((const char*)(w + k + 64 * i) + kAhead, _MM_HINT_T0);
        add(sums[i], _mm512_loadu_si512(x + k + 64 * i), _mm512_loadu_si512(w + k + 64 * i));
      }
    }
    for (; k < p.k; k += 64) {
      const Index left = p.k - k;
      const __mmask64 mask = left >= 64 ? ~0ull : (1ull << left) - 1;
      add(sums[0], _mm512_loadu_si512(x + k), _mm512_maskz_loadu_epi8(mask, w + k));
    }
    alignas(16) int32_t each[4];
    _mm_store_si128((__m128i*)each, sums_of(sums[0], sums[1], sums[2], sums[3]));
    const int32_t sum = each[0] + each[1] + each[2] + each[3] - 128 * p.w_sums[n];
    b.out[n - b.n0] = float(sum) * (p.x_scale[b.m0] * p.w_scale[n]);
  }
}

void int8(const Int8Problem& p, const Block& b) {
  struct alignas(64) Line { uint8_t bytes[64]; };
  static thread_local std::vector<Line> memory;
  const Index each = (p.kp + 63) / 64;
  memory.resize(size_t((b.m1 - b.m0) * each));
  for (Index i = 0; i < b.m1 - b.m0; ++i)
    for (Index j = 0; j < p.kp; j += 64)
      _mm512_store_si512(&memory[size_t(i * each + j / 64)],
                         _mm512_xor_si512(_mm512_loadu_si512(p.q + (b.m0 + i) * p.kp + j),
                                          _mm512_set1_epi8(char(0x80))));
  const uint8_t* x = memory[0].bytes;
  if (b.m1 - b.m0 == 1) return int8_single(p, x, b);
  product(b, p.w, p.k, kRun,
          [&](auto rows, auto some, Index m, Index n, Index k0, const Ahead& ahead, float* out) {
            int8_tile<rows, some>(p, x + (m - b.m0) * p.kp, m, n, k0, ahead, out, b.ld);
          });
}

void int4(const Int4Problem& p, const Block& b) { int4_vnni(p, b); }
void quantize(const float* x, Index k, Index kp, int8_t* q, float* scale) {
  quantize_row(x, k, kp, q, scale);
}
GRIFFIN_END
}  // namespace

const Kernels* avx512() {
  // fp32 by AVX2: whoever has these has bf16
  static const Kernels kernels{"avx512", dense,   avx2()->wide,        int8,   int4, quantize,
                               false, nullptr, avx2()->spread_wide, nullptr,
                               &avx2_kernels::kOneQueryAvx512,
                               &avx2_kernels::kBandAvx512};
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                 __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16")
             ? &kernels
             : nullptr;
}
#else
const Kernels* avx512() { return nullptr; }
#endif
}  // namespace griffin
