// AVX2 with FMA: products of bf16 and of fp32.
//
// One order of additions for any number of rows. K is cut into runs of 512; in a run eight lanes
// take turns, 16 weights a step, one fma after another; the lanes are added as a tree, the runs
// upwards. Products of bf16 are exact in fp32.
//
// Few rows read the weights as they lie. Many rows pay for widening a block of them once, into the
// order in which the inner loop reads.
#include <algorithm>

#include "avx2.h"

namespace griffin {
#if GRIFFIN_X86
namespace avx2_kernels {
GRIFFIN_BEGIN(GRIFFIN_AVX2)
namespace {

#include "avx2_tile.h"

constexpr Index kRun = 512;
constexpr Index kFew = 24;   // rows up to which weights are read as they lie
constexpr int kGroup4 = 4;   // rows of a group then
constexpr Index kPart = 96;  // rows of x whose run stays in the second-level cache

// `steps` steps of a group of rows times some columns, weights as they lie. ahead: bytes to fetch.
template <int Rows, int Columns, class Real>
inline void multiply(const float* x, const Real* const (&w)[Columns], Index steps, Index ahead,
                     __m256 (&sums)[Rows][4]) {
  for (Index s = 0; s < steps; ++s, x += Rows * kStep) {
    __m256 v[Rows];
    for (int r = 0; r < Rows; ++r) v[r] = _mm256_loadu_ps(x + 8 * r);
    for (int c = 0; c < Columns; ++c) {
      const __m256 weights = first(w[c] + s * kStep);
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm256_fmadd_ps(v[r], weights, sums[r][c]);
    }
    for (int r = 0; r < Rows; ++r) v[r] = _mm256_loadu_ps(x + 8 * (Rows + r));
    for (int c = 0; c < Columns; ++c) {
      if (ahead) _mm_prefetch((const char*)(w[c] + s * kStep) + ahead, _MM_HINT_T0);
      const __m256 weights = second(w[c] + s * kStep);
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm256_fmadd_ps(v[r], weights, sums[r][c]);
    }
  }
}

// Columns: 4 of up to two rows, 2 of three or four. More sums wouldn't fit into the registers.
template <int Rows, int Columns, class Real>
inline void few(const float* x, const Real* const (&rows)[4], Index k0, Index k1, Index ahead,
                float* out, Index ld) {
  const Index steps = (k1 - k0) / kStep, rest = (k1 - k0) % kStep;
  for (int part = 0; part < 4; part += Columns) {
    __m256 sums[Rows][4];
    for (auto& row : sums)
      for (auto& sum : row) sum = _mm256_setzero_ps();
    const Real* w[Columns];
    for (int c = 0; c < Columns; ++c) w[c] = rows[part + c] + k0;
    multiply<Rows, Columns>(x, w, steps, ahead, sums);
    if (rest) {
      Real copy[Columns][kStep] = {};
      const Real* ends[Columns];
      for (int c = 0; c < Columns; ++c) {
        std::memcpy(copy[c], w[c] + steps * kStep, rest * sizeof(Real));
        ends[c] = copy[c];
      }
      multiply<Rows, Columns>(x + steps * Rows * kStep, ends, 1, 0, sums);
    }
    store<Rows, Columns>(sums, out + part, ld, k0 == 0);
  }
}

// The columns n .. n + 3 of w; the last one again where there are fewer.
template <class Real>
inline void columns(const Dense<Real>& p, Index n, const Real* (&w)[4]) {
  for (Index c = 0; c < 4; ++c) w[c] = p.w + std::min(n + c, p.n - 1) * p.k;
}

template <class Real>
inline void few_rows(const Dense<Real>& p, const Block& b) {
  const Index whole = (p.k + kStep - 1) / kStep * kStep;
  for (Index n = b.n0; n < b.n1; n += 4) {
    const Real* w[4];
    columns(p, n, w);
    for (Index k0 = 0; k0 < p.k; k0 += kRun) {
      const Index k1 = std::min(k0 + kRun, p.k);
      for (Index m = b.m0; m < b.m1; m += kGroup4) {
        const Index count = std::min<Index>(kGroup4, b.m1 - m);
        const float* x = p.spread + m * whole + k0 * count;
        float* out = b.out + (m - b.m0) * b.ld + (n - b.n0);
        const Index ahead = m == b.m0 ? 4 * p.k * Index(sizeof(Real)) : 0;
        if (count == 4) few<4, 2>(x, w, k0, k1, ahead, out, b.ld);
        else if (count == 3) few<3, 2>(x, w, k0, k1, ahead, out, b.ld);
        else if (count == 2) few<2, 4>(x, w, k0, k1, ahead, out, b.ld);
        else few<1, 4>(x, w, k0, k1, ahead, out, b.ld);
      }
    }
  }
}

template <class Real>
inline void many_rows(const Dense<Real>& p, const Block& b) {
  const Index whole = (p.k + kStep - 1) / kStep * kStep;
  float* wide = reinterpret_cast<float*>(tile());
  for (Index k0 = 0; k0 < p.k; k0 += kRun) {
    const Index k1 = std::min(k0 + kRun, p.k), steps = (k1 - k0 + kStep - 1) / kStep;
    const Index each = 4 * steps * kStep;  // numbers of four columns
    for (Index n = b.n0; n < b.n1; n += 4) {
      const Real* w[4];
      columns(p, n, w);
      widen(w, k0, k1, wide + (n - b.n0) / 4 * each);
    }
    for (Index part = b.m0; part < b.m1; part += kPart) {
      const Index end = std::min(part + kPart, b.m1);
      for (Index pair = b.n0; pair < b.n1; pair += 8) {
        for (Index m = part; m < end; m += kGroup3) {
          const Index count = std::min<Index>(kGroup3, b.m1 - m);
          const float* x = p.spread + m * whole + k0 * count;
          for (Index n = pair; n < std::min(pair + 8, b.n1); n += 4) {
            const float* w = wide + (n - b.n0) / 4 * each;
            float* out = b.out + (m - b.m0) * b.ld + (n - b.n0);
            if (count == 3) many<3>(x, w, 2 * steps, out, b.ld, k0 == 0);
            else if (count == 2) many<2>(x, w, 2 * steps, out, b.ld, k0 == 0);
            else many<1>(x, w, 2 * steps, out, b.ld, k0 == 0);
          }
        }
      }
    }
  }
}

template <class Real>
inline void product(const Dense<Real>& p, const Block& b) {
  b.m1 - b.m0 <= kFew ? few_rows(p, b) : many_rows(p, b);
}

void spread_dense(const void* x, Index stride, Index k, Index count, void* to) {
  spread(static_cast<const bf16*>(x), stride, k, count, static_cast<float*>(to));
}
void spread_wide(const void* x, Index stride, Index k, Index count, void* to) {
  spread(static_cast<const float*>(x), stride, k, count, static_cast<float*>(to));
}
Index bytes(Index k) { return (k + kStep - 1) / kStep * kStep * 4; }
}  // namespace

void dense(const DenseProblem& p, const Block& b) { product(p, b); }
void wide(const WideProblem& p, const Block& b) { product(p, b); }
GRIFFIN_END

const Spread kSpreadDense{kGroup3, kGroup4, kFew, 512, bytes, spread_dense};
const Spread kSpreadWide{kGroup3, kGroup4, kFew, 512, bytes, spread_wide};
}  // namespace avx2_kernels
#endif
}  // namespace griffin
