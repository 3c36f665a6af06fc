// AVX2 with FMA: products with weights of 8 and 4 bits, whose sums of whole numbers are exact, and
// the table of what this instruction set offers.
#include "avx2.h"

#include <algorithm>

namespace griffin {
#if GRIFFIN_X86
namespace avx2_kernels {
namespace {
constexpr Index kStep = 16;
constexpr Index kFew = 8;     // rows up to which weights are read from end to end
constexpr Index kPart = 32;   // rows, and numbers of a row, of a block of x: 128 KB
constexpr Index kRun = 2048;
constexpr int kFour = 4;      // rows of the inner loop, by 2 columns: 8 sums in 16 registers
constexpr Index kAhead = 2048;  // bytes of w in 4 bits, fetched before they are read
}  // namespace

char* tile() {
  struct alignas(64) Tile { char bytes[kTile]; };
  static thread_local Tile memory;
  return memory.bytes;
}

GRIFFIN_BEGIN(GRIFFIN_AVX2)
namespace {

// 16-bit products in pairs: vpmaddubsw would saturate on two products of full range.
inline __m256i sixteen(const int8_t* w) {
  return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)w));
}

inline __m128i lanes_added(__m256i a, __m256i b, __m256i c, __m256i d) {
  const __m256i quarters = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
  return _mm_add_epi32(_mm256_castsi256_si128(quarters), _mm256_extracti128_si256(quarters, 1));
}

template <int Rows, int Columns = 4>
inline void store(const __m256i (&sums)[Rows][4], float* out, Index ld, bool begins) {
  for (int r = 0; r < Rows; ++r) {
    __m128i* at = (__m128i*)(out + r * ld);  // whole numbers until the last run is in
    __m128i sum = lanes_added(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    if (!begins) sum = _mm_add_epi32(Columns == 4 ? _mm_loadu_si128(at) : _mm_loadl_epi64(at), sum);
    Columns == 4 ? _mm_storeu_si128(at, sum) : _mm_storel_epi64(at, sum);
  }
}

template <int Rows, int Columns>
inline void multiply(const int16_t* x, const int8_t* const (&w)[Columns], Index steps, Index ahead,
                     __m256i (&sums)[Rows][4]) {
  for (Index s = 0; s < steps; ++s, x += Rows * kStep) {
    __m256i v[Rows];
    for (int r = 0; r < Rows; ++r) v[r] = _mm256_loadu_si256((const __m256i*)(x + kStep * r));
    for (int c = 0; c < Columns; ++c) {
      if (ahead && s % Columns == c) _mm_prefetch((const char*)(w[c] + s * kStep) + ahead, _MM_HINT_T0);
      const __m256i weights = sixteen(w[c] + s * kStep);
      for (int r = 0; r < Rows; ++r)
        sums[r][c] = _mm256_add_epi32(sums[r][c], _mm256_madd_epi16(v[r], weights));
    }
  }
}

// Columns: 4 of up to two rows, 2 of three or four. More sums wouldn't fit into the registers.
template <int Rows, int Columns>
inline void product(const int16_t* x, const int8_t* const (&rows)[4], Index k, Index ahead,
                    float* out, Index ld, bool begins) {
  const Index steps = k / kStep, rest = k % kStep;
  for (int part = 0; part < 4; part += Columns) {
    __m256i sums[Rows][4];
    for (auto& row : sums)
      for (auto& sum : row) sum = _mm256_setzero_si256();
    const int8_t* w[Columns];
    for (int c = 0; c < Columns; ++c) w[c] = rows[part + c];
    multiply<Rows, Columns>(x, w, steps, ahead, sums);
    if (rest) {
      int8_t copy[Columns][kStep] = {};
      const int8_t* ends[Columns];
      for (int c = 0; c < Columns; ++c) {
        std::memcpy(copy[c], w[c] + steps * kStep, size_t(rest));
        ends[c] = copy[c];
      }
      multiply<Rows, Columns>(x + steps * Rows * kStep, ends, 1, 0, sums);
    }
    store<Rows, Columns>(sums, out + part, ld, begins);
  }
}

inline void columns(const Int8Problem& p, Index n, Index k0, const int8_t* (&w)[4]) {
  for (Index c = 0; c < 4; ++c) w[c] = p.w + std::min(n + c, p.n - 1) * p.k + k0;
}

// Blocks of x and w that the second-level cache holds together; few rows read w straight on.
inline void blocks(const Int8Problem& p, const Block& b) {
  const Index run = b.m1 - b.m0 <= kFew ? p.k : kRun;
  for (Index part = b.m0; part < b.m1; part += kPart) {
    const Index end = std::min(part + kPart, b.m1);
    for (Index k0 = 0; k0 < p.k; k0 += run) {
      const Index k = std::min(run, p.k - k0);
      for (Index n = b.n0; n < b.n1; n += 4) {
        const int8_t* w[4];
        columns(p, n, k0, w);
        for (Index m = part; m < end; m += kFour) {
          const Index count = std::min<Index>(kFour, b.m1 - m), ahead = m == b.m0 ? 4 * p.k : 0;
          const int16_t* x = p.spread + m * p.kp + k0 * count;
          float* out = b.out + (m - b.m0) * b.ld + (n - b.n0);
          if (count == 4) product<4, 2>(x, w, k, ahead, out, b.ld, k0 == 0);
          else if (count == 3) product<3, 2>(x, w, k, ahead, out, b.ld, k0 == 0);
          else if (count == 2) product<2, 4>(x, w, k, ahead, out, b.ld, k0 == 0);
          else product<1, 4>(x, w, k, ahead, out, b.ld, k0 == 0);
        }
      }
    }
  }
}

void spread_int8(const void* q, Index stride, Index k, Index count, void* to) {
  const int8_t* x = static_cast<const int8_t*>(q);
  int16_t* wide = static_cast<int16_t*>(to);
  for (Index r = 0; r < count; ++r)
    for (Index i = 0; i < k; i += kStep)  // k is a multiple of kPad
      _mm256_storeu_si256((__m256i*)(wide + i * count + kStep * r), sixteen(x + r * stride + i));
}
Index spread_bytes(Index k) { return 2 * k; }

inline int32_t four(const int8_t* q) {
  int32_t word;
  std::memcpy(&word, q, 4);
  return word;
}

// 32 bytes of w, two nibbles of eight columns each, times 4 + 4 numbers of a row of x. A group's
// products of a nibble and an int8 fit into 16 bits: 8 pairs of at most 2 * 15 * 127 in a lane.
inline __m256i nibbles(const uint8_t* w, __m256i first, __m256i second) {
  const __m256i low = _mm256_set1_epi8(15), both = _mm256_loadu_si256((const __m256i*)w);
  const __m256i lower = _mm256_and_si256(both, low);
  const __m256i upper = _mm256_and_si256(_mm256_srli_epi16(both, 4), low);
  return _mm256_add_epi16(_mm256_maddubs_epi16(lower, first), _mm256_maddubs_epi16(upper, second));
}

// Rows rows of x by Halves halves of a panel (8 rows of w, one a lane). One row of x takes the
// whole panel, which comes from memory as one stream; more find the second half in the cache.
template <int Rows, int Halves>
inline void panel(const Int4Problem& p, Index m, Index n, Index half, float* out, Index ld) {
  const Index groups = p.k / kGroup, all = p.kp / kGroup;
  const uint8_t* w = p.w + n * (p.k / 2) + 32 * half;
  const bf16* scales = p.scale + n * groups + 8 * half;
  const __m256i ones = _mm256_set1_epi16(1);
  __m256 total[Rows][Halves];
  for (auto& row : total)
    for (auto& sum : row) sum = _mm256_setzero_ps();
  for (Index g = 0; g < groups; ++g, w += kPanel * kGroup / 2, scales += kPanel) {
    __m256i pairs[Rows][Halves];
    for (int i = 0; i < 4; ++i) {
      _mm_prefetch((const char*)w + 64 * i + kAhead, _MM_HINT_T0);
      for (int r = 0; r < Rows; ++r) {
        const int8_t* q = p.q + (m + r) * p.kp + g * kGroup + 4 * i;
        const __m256i first = _mm256_set1_epi32(four(q)), second = _mm256_set1_epi32(four(q + 16));
        for (int h = 0; h < Halves; ++h) {
          const __m256i sum = nibbles(w + 64 * i + 32 * h, first, second);
          pairs[r][h] = i ? _mm256_add_epi16(pairs[r][h], sum) : sum;
        }
      }
    }
    for (int h = 0; h < Halves; ++h) {
      const __m128i narrow = _mm_loadu_si128((const __m128i*)(scales + 8 * h));
      const __m256 scale =
          _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(narrow), 16));
      for (int r = 0; r < Rows; ++r) {
        const __m256i sum = _mm256_sub_epi32(_mm256_madd_epi16(pairs[r][h], ones),
                                             _mm256_set1_epi32(p.q_sums[(m + r) * all + g]));
        total[r][h] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sum), scale, total[r][h]);
      }
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int h = 0; h < Halves; ++h)
      _mm256_storeu_ps(out + r * ld + 8 * h,
                       _mm256_mul_ps(total[r][h], _mm256_set1_ps(p.x_scale[m + r])));
}

}  // namespace

void int8(const Int8Problem& p, const Block& b) {
  blocks(p, b);
  for (Index m = b.m0; m < b.m1; ++m) {
    float* out = b.out + (m - b.m0) * b.ld;
    const __m256 scale = _mm256_set1_ps(p.x_scale[m]);
    Index i = 0;
    for (; i + 8 <= b.n1 - b.n0; i += 8) {
      const __m256i sum = _mm256_loadu_si256((const __m256i*)(out + i));
      const __m256 factor = _mm256_mul_ps(scale, _mm256_loadu_ps(p.w_scale + b.n0 + i));
      _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), factor));
    }
    for (; i < b.n1 - b.n0; ++i) {
      int32_t sum;
      std::memcpy(&sum, out + i, 4);
      out[i] = float(sum) * (p.x_scale[m] * p.w_scale[b.n0 + i]);
    }
  }
}

void int4(const Int4Problem& p, const Block& b) {
  for (Index n = b.n0; n < b.n1; n += kPanel)
    for (Index m = b.m0; m < b.m1;) {
      const Index left = b.m1 - m;
      float* out = b.out + (m - b.m0) * b.ld + (n - b.n0);
      for (Index half = 0; half < 2 && left > 1; ++half) {
        if (left >= 4) panel<4, 1>(p, m, n, half, out + 8 * half, b.ld);
        else panel<2, 1>(p, m, n, half, out + 8 * half, b.ld);
      }
      if (left == 1) panel<1, 2>(p, m, n, 0, out, b.ld);
      m += left >= 4 ? 4 : left >= 2 ? 2 : 1;
    }
}

void quantize(const float* x, Index k, Index kp, int8_t* q, float* scale) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  __m256 largest = _mm256_setzero_ps(), poison = _mm256_setzero_ps();
  Index i = 0;
  float top = 0, bad = 0;
  for (; i + 8 <= k; i += 8) {
    const __m256 v = _mm256_loadu_ps(x + i);
    largest = _mm256_max_ps(largest, _mm256_andnot_ps(sign, v));
    poison = _mm256_fmadd_ps(v, _mm256_setzero_ps(), poison);
  }
  float tops[8], bads[8];
  _mm256_storeu_ps(tops, largest);
  _mm256_storeu_ps(bads, poison);
  for (int l = 0; l < 8; ++l) top = std::max(top, tops[l]), bad += bads[l];
  for (; i < k; ++i) {
    top = std::max(top, x[i] < 0 ? -x[i] : x[i]);
    bad += x[i] * 0.0f;
  }
  const bool finite = bad == 0.0f;
  const __m256 inverse = _mm256_set1_ps(finite && top > 0 ? 127.0f / top : 0.0f);
  *scale = top / 127.0f + bad;
  for (i = 0; i < kp; i += 8) {
    float copy[8] = {};
    if (i < k && finite) std::memcpy(copy, x + i, size_t(std::min<Index>(8, k - i)) * 4);
    const __m256i whole = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_loadu_ps(copy), inverse));
    const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(whole),
                                          _mm256_extracti128_si256(whole, 1));
    _mm_storel_epi64((__m128i*)(q + i), _mm_packs_epi16(words, words));
  }
}
GRIFFIN_END

const Spread kSpreadInt8{kFour, kFour, 0, 512, spread_bytes, spread_int8};
}  // namespace avx2_kernels

const Kernels* avx2() {
  namespace own = avx2_kernels;
  static const Kernels kernels{"avx2",
                               own::dense,
                               own::wide,
                               own::int8,
                               own::int4,
                               own::quantize,
                               false,
                               &own::kSpreadDense,
                               &own::kSpreadWide,
                               &own::kSpreadInt8,
                               &own::kOneQueryAvx2};
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") ? &kernels : nullptr;
}
#else
const Kernels* avx2() { return nullptr; }
#endif
}  // namespace griffin
