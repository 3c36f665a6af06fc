// The inner loops of products in fp32: three rows by four columns, lanes along K. Included inside a
// namespace, where AVX2 and FMA are on. One order of additions for all who use them.
#pragma once

constexpr Index kStep = 16;  // numbers that two vectors hold
constexpr int kGroup3 = 3;   // rows of the inner loop, by 4 columns: 12 sums in 16 registers

// 16 weights as two vectors: bf16's even and odd ones, which costs a shift and a mask.
inline __m256 first(const bf16* w) {
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_loadu_si256((const __m256i*)w), 16));
}
inline __m256 second(const bf16* w) {
  return _mm256_castsi256_ps(_mm256_and_si256(_mm256_loadu_si256((const __m256i*)w),
                                              _mm256_set1_epi32(int(0xffff0000u))));
}
inline __m256 first(const float* w) { return _mm256_loadu_ps(w); }
inline __m256 second(const float* w) { return _mm256_loadu_ps(w + 8); }

// The lanes of four vectors, added: one order for all callers.
inline __m128 lanes_added(__m256 a, __m256 b, __m256 c, __m256 d) {
  const __m256 quarters = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
  return _mm_add_ps(_mm256_castps256_ps128(quarters), _mm256_extractf128_ps(quarters, 1));
}

template <int Rows, int Columns = 4>
inline void store(const __m256 (&sums)[Rows][4], float* out, Index ld, bool begins) {
  for (int r = 0; r < Rows; ++r) {
    __m128 sum = lanes_added(sums[r][0], sums[r][1], sums[r][2], sums[r][3]);
    if (Columns == 4) {
      if (!begins) sum = _mm_add_ps(_mm_loadu_ps(out + r * ld), sum);
      _mm_storeu_ps(out + r * ld, sum);
    } else {
      __m128i* at = (__m128i*)(out + r * ld);
      if (!begins) sum = _mm_add_ps(_mm_castsi128_ps(_mm_loadl_epi64(at)), sum);
      _mm_storel_epi64(at, _mm_castps_si128(sum));
    }
  }
}

// A run of four columns, widened and interleaved: (vectors, 4, 8).
template <class Real>
inline void widen(const Real* const (&rows)[4], Index k0, Index k1, float* to) {
  for (int c = 0; c < 4; ++c) {
    const Real* w = rows[c] + k0;
    Index k = 0;
    for (; k + kStep <= k1 - k0; k += kStep) {
      _mm256_store_ps(to + 4 * k + 8 * c, first(w + k));
      _mm256_store_ps(to + 4 * k + 32 + 8 * c, second(w + k));
    }
    if (k < k1 - k0) {
      Real copy[kStep] = {};
      std::memcpy(copy, w + k, (k1 - k0 - k) * sizeof(Real));
      _mm256_store_ps(to + 4 * k + 8 * c, first(copy));
      _mm256_store_ps(to + 4 * k + 32 + 8 * c, second(copy));
    }
  }
}

template <int Rows>
inline void many(const float* x, const float* w, Index vectors, float* out, Index ld,
                 bool begins) {
  __m256 sums[Rows][4];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm256_setzero_ps();
  for (Index v = 0; v < vectors; ++v, x += 8 * Rows, w += 32) {
    __m256 rows[Rows];
    for (int r = 0; r < Rows; ++r) rows[r] = _mm256_loadu_ps(x + 8 * r);
    for (int c = 0; c < 4; ++c) {
      const __m256 weights = _mm256_load_ps(w + 8 * c);
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm256_fmadd_ps(rows[r], weights, sums[r][c]);
    }
  }
  store<Rows>(sums, out, ld, begins);
}

// One row in fp32 as number r of `count` rows whose vectors lie side by side, in the order of the
// weights' vectors; zeros up to a multiple of 16.
template <class Real>
inline void spread_row(const Real* row, Index k, Index count, Index r, float* to) {
  for (Index i = 0; i < k; i += kStep) {
    Real copy[kStep] = {};
    const Real* from = row + i;
    if (k - i < kStep) {
      std::memcpy(copy, from, size_t(k - i) * sizeof(Real));
      from = copy;
    }
    _mm256_storeu_ps(to + i * count + 8 * r, first(from));
    _mm256_storeu_ps(to + i * count + 8 * (count + r), second(from));
  }
}

template <class Real>
inline void spread(const Real* x, Index stride, Index k, Index count, float* to) {
  for (Index r = 0; r < count; ++r) spread_row(x + r * stride, k, count, r, to);
}
