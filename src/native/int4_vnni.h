// int4 with VNNI: also what AMX machines use for a few rows. Included where AVX-512 is on.
#pragma once

constexpr Index kAhead = 8192;  // bytes; measured: 1 024 and 16 384 are slower

static inline int32_t four(const int8_t* q) {
  int32_t word;
  std::memcpy(&word, q, 4);
  return word;
}

// One panel of 16 rows of w times `Rows` rows of x. first: w comes from memory.
template <int Rows>
static inline void int4_panel(const Int4Problem& p, Index m0, Index n, bool first, float* out,
                              Index ld, Index width) {
  const Index groups = p.k / kGroup, all = p.kp / kGroup;
  const uint8_t* w = p.w + n * (p.k / 2);
  const bf16* scales = p.scale + n * groups;
  const __m512i low = _mm512_set1_epi8(15);
  __m512 total[Rows];
  for (int r = 0; r < Rows; ++r) total[r] = _mm512_setzero_ps();
  for (Index g = 0; g < groups; ++g, w += kPanel * kGroup / 2) {
    __m512i v[8];
    if (first)  // and the hardware's prefetcher ends at each page
      for (int i = 0; i < 4; ++i) _mm_prefetch((const char*)w + kAhead + 64 * i, _MM_HINT_T0);
    for (int i = 0; i < 4; ++i) {
      const __m512i both = _mm512_loadu_si512(w + 64 * i);
      v[i] = _mm512_and_si512(both, low);
      v[i + 4] = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
    }
    const __m512 scale = _mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(scales + g * kPanel))), 16));
    for (int r = 0; r < Rows; ++r) {
      const int8_t* q = p.q + (m0 + r) * p.kp + g * kGroup;
      // two chains hide the latency; integers may be added in any order
      __m512i a = _mm512_set1_epi32(-p.q_sums[(m0 + r) * all + g]), b = _mm512_setzero_si512();
      for (int i = 0; i < 4; ++i) {
        a = _mm512_dpbusd_epi32(a, v[i], _mm512_set1_epi32(four(q + 4 * i)));
        b = _mm512_dpbusd_epi32(b, v[i + 4], _mm512_set1_epi32(four(q + 16 + 4 * i)));
      }
      total[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(_mm512_add_epi32(a, b)), scale, total[r]);
    }
  }
  const __mmask16 mask = width >= kPanel ? 0xffff : __mmask16((1u << width) - 1);
  for (int r = 0; r < Rows; ++r)
    _mm512_mask_storeu_ps(out + r * ld, mask,
                          _mm512_mul_ps(total[r], _mm512_set1_ps(p.x_scale[m0 + r])));
}

static inline void int4_vnni(const Int4Problem& p, const Block& b) {
  for (Index n = b.n0; n < b.n1; n += kPanel) {
    const Index width = b.n1 - n;
    Index m = b.m0;
    for (; m + 8 <= b.m1; m += 8)
      int4_panel<8>(p, m, n, m == b.m0, b.out + (m - b.m0) * b.ld + (n - b.n0), b.ld, width);
    for (; m + 4 <= b.m1; m += 4)
      int4_panel<4>(p, m, n, m == b.m0, b.out + (m - b.m0) * b.ld + (n - b.n0), b.ld, width);
    for (; m < b.m1; ++m)
      int4_panel<1>(p, m, n, m == b.m0, b.out + (m - b.m0) * b.ld + (n - b.n0), b.ld, width);
  }
}

static inline __mmask16 lanes(Index left) {
  return left >= 16 ? __mmask16(0xffff) : left > 0 ? __mmask16((1u << left) - 1) : __mmask16(0);
}

static inline void quantize_row(const float* x, Index k, Index kp, int8_t* q, float* scale) {
  __m512 largest = _mm512_setzero_ps(), poison = _mm512_setzero_ps();
  for (Index i = 0; i < k; i += 16) {
    const __m512 v = _mm512_maskz_loadu_ps(lanes(k - i), x + i);
    largest = _mm512_max_ps(largest, _mm512_abs_ps(v));
    poison = _mm512_fmadd_ps(v, _mm512_setzero_ps(), poison);
  }
  const float top = _mm512_reduce_max_ps(largest), bad = _mm512_reduce_add_ps(poison);
  const bool finite = bad == 0.0f;
  const __m512 inverse = _mm512_set1_ps(finite && top > 0 ? 127.0f / top : 0.0f);
  *scale = top / 127.0f + bad;
  for (Index i = 0; i < kp; i += 16) {
    const __m512 v = _mm512_mul_ps(_mm512_maskz_loadu_ps(lanes(k - i), x + i), inverse);
    const __m512i whole = finite ? _mm512_cvtps_epi32(v) : _mm512_setzero_si512();
    _mm_storeu_si128((__m128i*)(q + i), _mm512_cvtepi32_epi8(whole));
  }
}
