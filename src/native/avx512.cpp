// AVX-512 with BF16 and VNNI (Zen 4, Cooper Lake).
#include "avx2.h"
#include "griffin.h"
#include "x86.h"

namespace griffin {
#if GRIFFIN_X86
namespace {
GRIFFIN_BEGIN(GRIFFIN_AVX512)
#include "int4_vnni.h"

// Rows x Columns dot products along K, 32 products an instruction.
template <int Rows, int Columns>
inline void dense_tile(const DenseProblem& p, Index m, Index n, float* out, Index ld) {
  __m512 sums[Rows][Columns];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm512_setzero_ps();
  for (Index k = 0; k < p.k; k += 32) {
    const Index left = p.k - k;
    const __mmask32 mask = left >= 32 ? 0xffffffffu : (1u << left) - 1;
    __m512bh x[Rows];
    for (int r = 0; r < Rows; ++r)
      x[r] = (__m512bh)_mm512_maskz_loadu_epi16(mask, p.x + (m + r) * p.stride + k);
    for (int c = 0; c < Columns; ++c) {
      const __m512bh w = (__m512bh)_mm512_maskz_loadu_epi16(mask, p.w + (n + c) * p.k + k);
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm512_dpbf16_ps(sums[r][c], x[r], w);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Columns; ++c) out[r * ld + c] = _mm512_reduce_add_ps(sums[r][c]);
}

template <int Rows, int Columns>
inline void int8_tile(const Int8Problem& p, Index m, Index n, float* out, Index ld) {
  __m512i sums[Rows][Columns];
  for (auto& row : sums)
    for (auto& sum : row) sum = _mm512_setzero_si512();
  const __m512i flip = _mm512_set1_epi8(char(0x80));  // q + 128 as an unsigned byte
  for (Index k = 0; k < p.k; k += 64) {
    const Index left = p.k - k;
    const __mmask64 mask = left >= 64 ? ~0ull : (1ull << left) - 1;
    __m512i q[Rows];
    for (int r = 0; r < Rows; ++r)
      q[r] = _mm512_xor_si512(_mm512_loadu_si512(p.q + (m + r) * p.kp + k), flip);
    if (Rows == 1 && Columns == 1)  // the hardware's prefetcher ends at each page
      _mm_prefetch((const char*)p.w + n * p.k + k + kAhead, _MM_HINT_T0);
    for (int c = 0; c < Columns; ++c) {
      const __m512i w = _mm512_maskz_loadu_epi8(mask, p.w + (n + c) * p.k + k);
      for (int r = 0; r < Rows; ++r) sums[r][c] = _mm512_dpbusd_epi32(sums[r][c], q[r], w);
    }
  }
  for (int r = 0; r < Rows; ++r)
    for (int c = 0; c < Columns; ++c) {
      const int32_t sum = _mm512_reduce_add_epi32(sums[r][c]) - 128 * p.w_sums[n + c];
      out[r * ld + c] = float(sum) * (p.x_scale[m + r] * p.w_scale[n + c]);
    }
}

template <int Rows>
inline void dense_rows(const DenseProblem& p, const Block& b, Index m) {
  float* out = b.out + (m - b.m0) * b.ld;
  Index n = b.n0;
  if (p.m > 1)  // else w comes from memory, fastest as one stream
    for (; n + 4 <= b.n1; n += 4) dense_tile<Rows, 4>(p, m, n, out + (n - b.n0), b.ld);
  for (; n < b.n1; ++n) dense_tile<Rows, 1>(p, m, n, out + (n - b.n0), b.ld);
}

template <int Rows>
inline void int8_rows(const Int8Problem& p, const Block& b, Index m) {
  float* out = b.out + (m - b.m0) * b.ld;
  Index n = b.n0;
  if (p.m > 1)  // as above
    for (; n + 4 <= b.n1; n += 4) int8_tile<Rows, 4>(p, m, n, out + (n - b.n0), b.ld);
  for (; n < b.n1; ++n) int8_tile<Rows, 1>(p, m, n, out + (n - b.n0), b.ld);
}

void dense(const DenseProblem& p, const Block& b) {
  Index m = b.m0;
  for (; m + 4 <= b.m1; m += 4) dense_rows<4>(p, b, m);
  for (; m < b.m1; ++m) dense_rows<1>(p, b, m);
}

void int8(const Int8Problem& p, const Block& b) {
  Index m = b.m0;
  for (; m + 4 <= b.m1; m += 4) int8_rows<4>(p, b, m);
  for (; m < b.m1; ++m) int8_rows<1>(p, b, m);
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
                               &avx2_kernels::kOneQueryAvx512};
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
