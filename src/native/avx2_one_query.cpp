// Attention of one query by AVX2, in bf16: as avx512_attention.cpp, with half as wide vectors and
// half as many registers. Every lane adds in the order of avx2_attention.cpp: the bits are the same.
#include "avx2.h"
#include "griffin.h"
#include "x86.h"

namespace griffin {
#if GRIFFIN_X86
namespace avx2_kernels {
GRIFFIN_BEGIN(GRIFFIN_AVX2)
namespace {
#include "avx2_tile.h"

constexpr Index kAhead = 8192;  // bytes
constexpr int kKeys = 4;        // of the inner loop over keys, by up to 3 rows of queries
constexpr int kHeads = 5;       // rows of the inner loop over values, by 16 columns
constexpr Index kValues = 16;   // at a time: their rows stay in the first-level cache

// Rows follow one another in memory; the hardware's prefetcher ends at each page.
inline void ahead(const bf16* row, Index width) {
  const char* then = (const char*)row + kAhead;
  for (Index i = 0; i < 2 * width; i += 64) _mm_prefetch(then + i, _MM_HINT_T0);
}

// Four keys, Rows rows of queries as `spread_row` lays them: scores into out (Rows, 4).
template <int Rows>
inline void four_keys(const bf16* const* keys, const float* q, Index width, float* out,
                      Index room) {
  __m256 sums[Rows][4];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm256_setzero_ps();
  const auto step = [&](int c, const __m256 (&x)[Rows], __m256 key) {
    for (int r = 0; r < Rows; ++r) sums[r][c] = _mm256_fmadd_ps(x[r], key, sums[r][c]);
  };
  for (Index k = 0; k < width; k += kStep, q += kStep * Rows) {
    __m256 x[Rows];
    for (int r = 0; r < Rows; ++r) x[r] = _mm256_loadu_ps(q + 8 * r);
    for (int c = 0; c < kKeys; ++c) step(c, x, first(keys[c] + k));
    for (int r = 0; r < Rows; ++r) x[r] = _mm256_loadu_ps(q + 8 * (Rows + r));
    for (int c = 0; c < kKeys; ++c) step(c, x, second(keys[c] + k));
  }
  store<Rows>(sums, out, room, true);
}

void scores(const bf16* const* keys, Index count, const float* queries, Index rows, Index width,
            float* out, Index room) {
  for (Index j = 0; j < count; j += kKeys) {
    const bf16* some[kKeys];
    for (Index c = 0; c < kKeys; ++c) some[c] = keys[j + c < count ? j + c : count - 1];
    for (const bf16* key : some) ahead(key, width);
    for (Index r = 0; r < rows; r += kGroup3) {
      const float* q = queries + r * width;
      float* to = out + r * room + j;
      if (rows - r >= 3) four_keys<3>(some, q, width, to, room);
      else if (rows - r == 2) four_keys<2>(some, q, width, to, room);
      else four_keys<1>(some, q, width, to, room);
    }
  }
}

inline __m256 eight(const bf16* v) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)v));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

// sums (Rows, 16 columns) += shares times values, one value after another.
template <int Rows>
void add_columns(const bf16* const* values, Index column, Index count, const float* shares,
                 Index room, float* sums, Index width) {
  __m256 acc[Rows][2];
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < 2; ++i) acc[r][i] = _mm256_loadu_ps(sums + r * width + 8 * i);
  for (Index j = 0; j < count; ++j) {
    const __m256 a = eight(values[j] + column), b = eight(values[j] + column + 8);
    for (int r = 0; r < Rows; ++r) {
      const __m256 share = _mm256_broadcast_ss(shares + r * room + j);
      acc[r][0] = _mm256_fmadd_ps(share, a, acc[r][0]);
      acc[r][1] = _mm256_fmadd_ps(share, b, acc[r][1]);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int i = 0; i < 2; ++i) _mm256_storeu_ps(sums + r * width + 8 * i, acc[r][i]);
}

void add(const bf16* const* values, Index count, const float* shares, Index room, Index rows,
         Index width, float* sums) {
  using AddColumns = void (*)(const bf16* const*, Index, Index, const float*, Index, float*, Index);
  static const AddColumns of[kHeads] = {add_columns<1>, add_columns<2>, add_columns<3>,
                                        add_columns<4>, add_columns<5>};
  for (Index j = 0; j < count; j += kValues) {
    const Index few = count - j < kValues ? count - j : kValues;
    for (Index i = j; i < j + few; ++i) ahead(values[i], width);
    for (Index r = 0; r < rows; r += kHeads) {
      const Index some = rows - r < kHeads ? rows - r : kHeads;
      for (Index d = 0; d < width; d += kStep)
        of[some - 1](values + j, d, few, shares + r * room + j, room, sums + r * width + d, width);
    }
  }
}
GRIFFIN_END
}  // namespace

const OneQuery kOneQueryAvx2{scores, add};
}  // namespace avx2_kernels
#endif
}  // namespace griffin
