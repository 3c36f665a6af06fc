// A block of attention over a band by AVX-512 with BF16: five products of one kind, and between
// them a softmax that never leaves the nearest caches.
#include <algorithm>
#include <cmath>
#include <vector>

#include "avx2.h"
#include "band_bf16.h"
#include "x86.h"

namespace griffin {
#if GRIFFIN_X86
namespace {
GRIFFIN_BEGIN(GRIFFIN_AVX512)
constexpr int kTall = 8, kRuns = 3;  // rows, and vectors of 16 columns, of the sums in registers
constexpr Index kLanes = 16;
static_assert(kBandKeys == kRuns * kLanes && kBandRows % kTall == 0);
constexpr float kLog2e = 1.44269504f;

using Sums = __m512[kTall][kRuns];

// sum += a b of pairs, in place: of the intrinsic GCC 12 makes copies, and has no registers left.
inline void add(__m512& sum, __m512i a, __m512i b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
}

// Matrices of pairs: a's element (row, step), and b's vector (step, run), so many pairs apart.
struct Left {
  const Pair* from;
  Index row, step;
};
struct Right {
  const Pair* from;
  Index run, step;
};

template <int Runs>
inline void add_products(Left a, Right b, Index steps, Sums& sums) {
  for (Index s = 0; s < steps; ++s, a.from += a.step, b.from += b.step) {
    __m512i wide[Runs];
    GRIFFIN_UNROLL
    for (int c = 0; c < Runs; ++c) wide[c] = _mm512_loadu_si512(b.from + c * b.run);
    GRIFFIN_UNROLL
    for (int r = 0; r < kTall; ++r) {
      const __m512i one = _mm512_set1_epi32(int(a.from[r * a.row]));
      GRIFFIN_UNROLL
      for (int c = 0; c < Runs; ++c) add(sums[r][c], one, wide[c]);
    }
  }
}

// out (kTall, Runs * 16) = a b, or += a b where it is to Add; rows `ld` apart. Not inline: among
// other work GCC finds no registers for all sums.
template <int Runs, bool Add>
__attribute__((noinline)) void product(Left a, Right b, Index steps, float* out, Index ld) {
  Sums sums;
  GRIFFIN_UNROLL
  for (int r = 0; r < kTall; ++r)
    GRIFFIN_UNROLL
    for (int c = 0; c < Runs; ++c)
      sums[r][c] = Add ? _mm512_loadu_ps(out + r * ld + c * kLanes) : _mm512_setzero_ps();
  add_products<Runs>(a, b, steps, sums);
  GRIFFIN_UNROLL
  for (int r = 0; r < kTall; ++r)
    GRIFFIN_UNROLL
    for (int c = 0; c < Runs; ++c) _mm512_storeu_ps(out + r * ld + c * kLanes, sums[r][c]);
}

// out += a b for all columns of b and any number of rows, a multiple of kTall.
void add_all(Left a, Right b, Index steps, float* out, Index rows, Index width) {
  for (Index r = 0; r < rows; r += kTall, a.from += kTall * a.row)
    for (Index c = 0; c < width;) {
      const Right part{b.from + c, b.run, b.step};
      const Index left = (width - c) / kLanes;
      float* to = out + r * width + c;
      if (left >= 3 && left != 4) product<3, true>(a, part, steps, to, width), c += 3 * kLanes;
      else if (left >= 2) product<2, true>(a, part, steps, to, width), c += 2 * kLanes;
      else product<1, true>(a, part, steps, to, width), c += kLanes;
    }
}

// 2^x for x <= 127; relative error 2e-7. NaN stays.
inline __m512 power_of_two(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-126.0f), x);
  const __m512 whole = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 f = _mm512_sub_ps(x, whole);
  constexpr float kTerms[] = {1.33988744e-3f, 9.61843736e-3f, 5.55033247e-2f,
                               2.40226479e-1f, 6.93147203e-1f, 1.0f};
  __m512 p = _mm512_set1_ps(1.53533619e-4f);
  GRIFFIN_UNROLL
  for (float c : kTerms) p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c));
  return _mm512_scalef_ps(p, whole);
}

// Which of 16 keys from j on a row sees.
inline __mmask16 seen(Index first, Index end, Index j) {
  const Index from = std::max<Index>(0, first - j), to = std::min(kLanes, end - j);
  if (from >= to) return 0;
  return __mmask16(((1u << to) - 1) & ~((1u << from) - 1));
}

// The keys that any, and that all, of kTall rows see.
struct Bounds {
  Bounds(const int64_t* first, const int64_t* end, Index rows = kTall) {
    low = all_from = first[0], high = all_to = end[0];
    for (Index r = 1; r < rows; ++r) {
      low = std::min<Index>(low, first[r]), all_from = std::max<Index>(all_from, first[r]);
      high = std::max<Index>(high, end[r]), all_to = std::min<Index>(all_to, end[r]);
    }
    low -= low % kLanes;
  }
  bool whole(Index j) const { return all_from <= j && j + kBandKeys <= all_to; }
  Index low, high, all_from, all_to;  // low: down to a multiple of 16
};

// kTall rows of `width` times 48 keys (or values) from j on, into rows `ld` apart.
inline void scores(const bf16* rows, const Pair* by_key, Index width, Index j, float* out,
                   Index ld) {
  const Index half = width / 2;
  product<kRuns, false>({reinterpret_cast<const Pair*>(rows), half, 1},
                        {by_key + j * half, kLanes * half, kLanes}, half, out, ld);
}

inline __m256i narrow(__m512 x) { return (__m256i)_mm512_cvtneps_pbh(x); }

void forward(const BandKeys& keys, const BandQueries& all, float* out, float* lse) {
  static thread_local std::vector<float> room;
  static thread_local std::vector<bf16> shares;
  const Index width = keys.width;
  const __m512 scale = _mm512_set1_ps(keys.scale * kLog2e);
  for (Index r0 = 0; r0 < kBandRows; r0 += kTall) {
    const int64_t *first = all.first + r0, *end = all.end + r0;
    const Bounds bounds(first, end);
    const Index tiles = (bounds.high - bounds.low + kBandKeys - 1) / kBandKeys;
    const Index span = tiles * kBandKeys;
    room.resize(size_t(kTall * span)), shares.resize(size_t(kTall * span));
    for (Index t = 0; t < tiles; ++t)
      scores(all.q + r0 * width, keys.k_by_key, width, bounds.low + t * kBandKeys,
             room.data() + t * kBandKeys, span);
    float total[kTall];
    for (Index r = 0; r < kTall; ++r) {
      const float* row = room.data() + r * span;
      const auto some = [&](Index i) {  // of 16 keys
        const Index j = bounds.low + i;
        const bool inside = bounds.all_from <= j && j + kLanes <= bounds.all_to;
        return inside ? __mmask16(0xffff) : seen(first[r], end[r], j);
      };
      __m512 most = _mm512_set1_ps(-3e38f), sum = _mm512_setzero_ps();
      for (Index i = 0; i < span; i += kLanes)
        most = _mm512_mask_max_ps(most, some(i), most, _mm512_loadu_ps(row + i));
      const float top = _mm512_reduce_max_ps(most) * (keys.scale * kLog2e);
      for (Index i = 0; i < span; i += kLanes) {
        const __m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(row + i), scale, _mm512_set1_ps(top));
        const __m512 p = _mm512_maskz_mov_ps(some(i), power_of_two(x));
        sum = _mm512_add_ps(sum, p);
        _mm256_storeu_si256((__m256i*)(shares.data() + r * span + i), narrow(p));
      }
      total[r] = _mm512_reduce_add_ps(sum);
      lse[r0 + r] = (top + std::log2(total[r])) / kLog2e;
    }
    float* to = out + r0 * width;
    std::fill(to, to + kTall * width, 0.0f);
    add_all({reinterpret_cast<const Pair*>(shares.data()), span / 2, 1},
            {keys.v_by_column + bounds.low / 2 * width, kLanes, width}, span / 2, to, kTall, width);
    for (Index r = 0; r < kTall; ++r)
      for (Index d = 0; d < width; d += kLanes) {
        float* at = to + r * width + d;
        _mm512_storeu_ps(at, _mm512_div_ps(_mm512_loadu_ps(at), _mm512_set1_ps(total[r])));
      }
  }
}

// The softmax of a tile and the gradient at its scores: by rows, in pairs of keys, and by columns,
// in pairs of rows.
struct Tile {
  alignas(64) float p[kTall * kBandKeys], at_p[kTall * kBandKeys];
  alignas(64) bf16 slope[kBandRows * kBandKeys];
  alignas(64) Pair p_by_column[kBandRows / 2 * kBandKeys];
  alignas(64) Pair slope_by_column[kBandRows / 2 * kBandKeys];
};

// Two rows' numbers as pairs.
inline __m512i paired(__m512 even, __m512 odd) {
  const __m512i low = _mm512_cvtepu16_epi32(narrow(even));
  return _mm512_or_si512(low, _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow(odd)), 16));
}

void fill_tile(const BandKeys& keys, const BandQueries& all, const BandSlopes& back, Index r0,
               Index j, const Bounds& bounds, Tile& tile) {
  const Index width = keys.width;
  const int64_t *first = all.first + r0, *end = all.end + r0;
  const bool whole = bounds.whole(j);
  const __m512 scale = _mm512_set1_ps(keys.scale * kLog2e);
  scores(all.q + r0 * width, keys.k_by_key, width, j, tile.p, kBandKeys);
  scores(back.g + r0 * width, keys.v_by_key, width, j, tile.at_p, kBandKeys);
  for (Index r = 0; r < kTall; r += 2)
    for (Index c = 0; c < kBandKeys; c += kLanes) {
      __m512 shares[2], slopes[2];
      GRIFFIN_UNROLL
      for (int i = 0; i < 2; ++i) {
        const Index at = (r + i) * kBandKeys + c;
        const __mmask16 some = whole ? 0xffff : seen(first[r + i], end[r + i], j + c);
        const __m512 shift = _mm512_set1_ps(back.lse[r0 + r + i] * kLog2e);
        const __m512 delta = _mm512_set1_ps(back.delta[r0 + r + i]);
        const __m512 x = _mm512_fmsub_ps(_mm512_load_ps(tile.p + at), scale, shift);
        shares[i] = _mm512_maskz_mov_ps(some, power_of_two(x));
        const __m512 above = _mm512_sub_ps(_mm512_load_ps(tile.at_p + at), delta);
        const __m512 share = _mm512_mul_ps(shares[i], _mm512_set1_ps(keys.scale));
        slopes[i] = _mm512_maskz_mul_ps(some, share, above);
        _mm256_store_si256((__m256i*)(tile.slope + r0 * kBandKeys + at), narrow(slopes[i]));
      }
      const Index to = (r0 + r) / 2 * kBandKeys + c;
      _mm512_store_si512(tile.p_by_column + to, paired(shares[0], shares[1]));
      _mm512_store_si512(tile.slope_by_column + to, paired(slopes[0], slopes[1]));
    }
}

void clear_tile(Index r0, Tile& tile) {
  std::memset(tile.slope + r0 * kBandKeys, 0, kTall * kBandKeys * sizeof(bf16));
  const Index at = r0 / 2 * kBandKeys, bytes = kTall / 2 * kBandKeys * sizeof(Pair);
  std::memset(tile.p_by_column + at, 0, bytes), std::memset(tile.slope_by_column + at, 0, bytes);
}

void backward(const BandKeys& keys, const BandQueries& all, const BandSlopes& back) {
  static thread_local Tile tile;
  const Index width = keys.width;
  std::fill(back.at_q, back.at_q + kBandRows * width, 0.0f);
  const Bounds block(all.first, all.end, kBandRows);
  for (Index j = block.low; j < block.high; j += kBandKeys) {
    for (Index r0 = 0; r0 < kBandRows; r0 += kTall) {
      const Bounds bounds(all.first + r0, all.end + r0);
      if (bounds.low < j + kBandKeys && j < bounds.high)
        fill_tile(keys, all, back, r0, j, bounds, tile);
      else
        clear_tile(r0, tile);
    }
    const Index to = (j - back.origin) * width;
    add_all({tile.p_by_column, 1, kBandKeys}, {back.g_by_column, kLanes, width}, kBandRows / 2,
            back.at_v + to, kBandKeys, width);
    add_all({tile.slope_by_column, 1, kBandKeys}, {back.q_by_column, kLanes, width}, kBandRows / 2,
            back.at_k + to, kBandKeys, width);
    add_all({reinterpret_cast<const Pair*>(tile.slope), kBandKeys / 2, 1},
            {keys.k_by_column + j / 2 * width, kLanes, width}, kBandKeys / 2, back.at_q, kBandRows,
            width);
  }
}
GRIFFIN_END
}  // namespace

namespace avx2_kernels {
const BandKernel kBandAvx512{forward, backward};
}
#endif
}  // namespace griffin
