// Attention of one query by AVX-512, in bf16: a decode step reads each key and value once, so
// widening them into memory first, which serves many queries, would cost more than the arithmetic.
// Every lane adds in the order of avx2_attention.cpp: the bits are the same.
#include "avx2.h"
#include "griffin.h"
#include "recurrence.h"
#include "x86.h"

namespace griffin {
#if GRIFFIN_X86
namespace avx2_kernels {
GRIFFIN_BEGIN(GRIFFIN_AVX512)
namespace {
#include "avx2_tile.h"

constexpr Index kAhead = 8192;  // bytes
constexpr int kPairs = 4;   // of keys in the inner loop, a key in each half of a vector
constexpr int kRuns = 4;    // of 16 columns of the values in the inner loop
constexpr int kHeads = 5;   // rows of that loop

inline __m512i two(const bf16* low, const bf16* high) {
  const __m512i wide = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i*)low));
  return _mm512_inserti64x4(wide, _mm256_loadu_si256((const __m256i*)high), 1);
}

// Rows follow one another in memory; the hardware's prefetcher ends at each page.
inline void ahead(const bf16* row, Index width) {
  const char* then = (const char*)row + kAhead;
  for (Index i = 0; i < 2 * width; i += 64) _mm_prefetch(then + i, _MM_HINT_T0);
}

// Eight keys, Rows rows of queries as `spread_row` lays them: scores into out (Rows, 8).
template <int Rows>
inline void eight_keys(const bf16* const* keys, const float* q, Index width, float* out,
                       Index room) {
  const __m512i odd = _mm512_set1_epi32(int(0xffff0000u));
  __m512 sums[Rows][kPairs];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm512_setzero_ps();
  for (Index k = 0; k < width; k += kStep, q += kStep * Rows) {
    __m512 x[2][Rows];
    for (int half = 0; half < 2; ++half)
      for (int r = 0; r < Rows; ++r)
        x[half][r] = _mm512_broadcast_f32x8(_mm256_loadu_ps(q + 8 * (half * Rows + r)));
    for (int c = 0; c < kPairs; ++c) {
      const __m512i both = two(keys[2 * c] + k, keys[2 * c + 1] + k);
      const __m512 first = _mm512_castsi512_ps(_mm512_slli_epi32(both, 16));
      const __m512 second = _mm512_castsi512_ps(_mm512_and_si512(both, odd));
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm512_fmadd_ps(x[0][r], first, sums[r][c]);
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm512_fmadd_ps(x[1][r], second, sums[r][c]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < kPairs; c += 2)
      _mm_storeu_ps(out + r * room + 2 * c,
                    lanes_added(_mm512_castps512_ps256(sums[r][c]),
                                _mm512_extractf32x8_ps(sums[r][c], 1),
                                _mm512_castps512_ps256(sums[r][c + 1]),
                                _mm512_extractf32x8_ps(sums[r][c + 1], 1)));
}

void scores(const bf16* const* keys, Index count, const float* queries, Index rows, Index width,
            float* out, Index room) {
  for (Index j = 0; j < count; j += 2 * kPairs) {
    const bf16* some[2 * kPairs];
    for (Index c = 0; c < 2 * kPairs; ++c) some[c] = keys[j + c < count ? j + c : count - 1];
    for (Index c = 0; c < 2 * kPairs; ++c) ahead(some[c], width);
    for (Index r = 0; r < rows; r += kGroup3) {
      const float* q = queries + r * width;
      float* to = out + r * room + j;
      if (rows - r >= 3) eight_keys<3>(some, q, width, to, room);
      else if (rows - r == 2) eight_keys<2>(some, q, width, to, room);
      else eight_keys<1>(some, q, width, to, room);
    }
  }
}

// sums (Rows, Runs * 16) += shares times values, one value after another.
template <int Rows, int Runs>
inline void add_runs(const bf16* const* values, Index column, Index count, const float* shares,
                     Index room, float* sums, Index width) {
  __m512 acc[Rows][Runs];
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < Runs; ++i) acc[r][i] = _mm512_loadu_ps(sums + r * width + 16 * i);
  for (Index j = 0; j < count; ++j) {
    __m512 v[Runs];
    for (int i = 0; i < Runs; ++i) {
      const __m256i narrow = _mm256_loadu_si256((const __m256i*)(values[j] + column + 16 * i));
      v[i] = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16));
    }
    for (int r = 0; r < Rows; ++r) {
      const __m512 share = _mm512_set1_ps(shares[r * room + j]);
      for (int i = 0; i < Runs; ++i) acc[r][i] = _mm512_fmadd_ps(share, v[i], acc[r][i]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < Runs; ++i) _mm512_storeu_ps(sums + r * width + 16 * i, acc[r][i]);
}

template <int Rows>
void add_rows(const bf16* const* values, Index count, const float* shares, Index room, float* sums,
              Index width) {
  Index d = 0;
  for (; d + 16 * kRuns <= width; d += 16 * kRuns)
    add_runs<Rows, kRuns>(values, d, count, shares, room, sums + d, width);
  for (; d < width; d += 16) add_runs<Rows, 1>(values, d, count, shares, room, sums + d, width);
}

void add(const bf16* const* values, Index count, const float* shares, Index room, Index rows,
         Index width, float* sums) {
  using AddRows = void (*)(const bf16* const*, Index, const float*, Index, float*, Index);
  static const AddRows of[kHeads] = {add_rows<1>, add_rows<2>, add_rows<3>, add_rows<4>,
                                     add_rows<5>};
  for (Index j = 0; j < count; ++j) ahead(values[j], width);
  for (Index r = 0; r < rows; r += kHeads) {
    const Index some = rows - r < kHeads ? rows - r : kHeads;
    of[some - 1](values, count, shares + r * room, room, sums + r * width, width);
  }
}
GRIFFIN_END
}  // namespace

const OneQuery kOneQueryAvx512{scores, add};
}  // namespace avx2_kernels
#endif
}  // namespace griffin
