// AMX (Sapphire Rapids and later): tiles of 16 rows of w by up to 16 rows of x, also for one row.
#include <initializer_list>

#include "avx2.h"
#include "griffin.h"
#include "x86.h"

#if GRIFFIN_X86 && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace griffin {
#if GRIFFIN_X86 && defined(__linux__)
namespace {
GRIFFIN_BEGIN(GRIFFIN_AMX)
#include "int4_vnni.h"

struct alignas(64) TileConfig {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t bytes[16] = {};  // a row
  uint8_t rows[16] = {};
};

// An opaque load: some compilers believe that the instruction reads 8 bytes only.
inline void configure(const TileConfig& config) {
  __asm__ volatile("ldtilecfg %0" ::"m"(config) : "memory");
}

// Tiles 0..3: sums, 16 rows of w x a block's rows of x; 4, 5: w; 6, 7: x, transposed.
inline void configure_products(Index first, Index second) {
  TileConfig config;
  for (int t = 0; t < 6; ++t) config.rows[t] = 16;
  for (int t : {6, 7}) config.rows[t] = 16;
  for (int t : {0, 1, 6}) config.bytes[t] = uint16_t(4 * first);
  for (int t : {2, 3, 7}) config.bytes[t] = uint16_t(4 * (second ? second : first));
  for (int t : {4, 5}) config.bytes[t] = 64;
  configure(config);
}

// A tile (16 rows of w, count rows of x) into `count` rows of out, each value finished on the way.
template <class Finish>
inline void put(const int32_t* tile, Index count, Index width, float* out, Index ld,
                const Finish& finish, Index m, Index n) {
  const __m512i step = _mm512_mullo_epi32(
      _mm512_set1_epi32(int(count)),
      _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
  const __mmask16 mask = width >= 16 ? 0xffff : __mmask16((1u << width) - 1);
  for (Index i = 0; i < count; ++i) {
    const __m512i column = _mm512_i32gather_epi32(step, tile + i, 4);
    _mm512_mask_storeu_ps(out + i * ld, mask, finish(column, m + i, n, mask));
  }
}

constexpr Index kFew = 1;  // rows of x for which tiles are slower than vectors

struct Source {
  const char* at;
  Index stride;
};

// 16 rows of w at column k, or a padded copy of them at the edges of the matrix.
inline Source weights(const char* w, Index stride, Index rows, Index bytes, char* copy) {
  if (rows >= 16 && bytes >= 64) return {w, stride};
  std::memset(copy, 0, 1024);
  for (Index r = 0; r < (rows < 16 ? rows : 16); ++r)
    std::memcpy(copy + 64 * r, w + r * stride, size_t(bytes < 64 ? bytes : 64));
  return {copy, 64};
}

// Both products: w tiles come as they lie, `x` in words of four bytes, (K', 16, 4 bytes) for each
// 16 rows. Multiply is the instruction; step: bytes of w that a tile's row holds.
template <class Multiply, class Finish>
inline void products(const char* w, Index stride, const char* x, Index m0, Index m1, Index n0,
                     Index n1, float* out, Index ld, const Multiply& multiply,
                     const Finish& finish) {
  alignas(64) char copy[1024];
  alignas(64) int32_t tile[256];
  const Index words = (stride + 63) / 64 * 16;  // of one row of x, padded
  const Index first = m1 - m0 < 16 ? m1 - m0 : 16, second = m1 - m0 - first;
  configure_products(first, second);
  // One block of x: w comes from memory, and rows side by side confuse the hardware's prefetcher.
  const bool ahead = m0 == 0 && m1 - m0 < kRows;
  const char* xa = x + m0 * words * 4;
  const char* xb = xa + 16 * words * 4;
  for (Index n = n0; n < n1; n += 32) {
    const Index rows = n1 - n, low = rows - 16;
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (Index k = 0; k < stride; k += 64) {
      const Index left = stride - k;
      if (ahead) {
        const char* next = w + (n + 32) * stride + 32 * k;
        for (Index i = 0; i < 2048; i += 64) _mm_prefetch(next + i, _MM_HINT_T1);
      }
      _tile_loadd(6, xa + k * first, 4 * first);
      const Source upper = weights(w + n * stride + k, stride, rows, left, copy);
      _tile_loadd(4, upper.at, upper.stride);
      multiply.a();
      if (low > 0) {
        const Source lower = weights(w + (n + 16) * stride + k, stride, low, left, copy);
        _tile_loadd(5, lower.at, lower.stride);
        multiply.b();
      }
      if (second) {
        _tile_loadd(7, xb + k * second, 4 * second);
        multiply.c();
        if (low > 0) multiply.d();
      }
    }
    float* here = out + (n - n0);
    _tile_stored(0, tile, 4 * first);
    put(tile, first, rows, here, ld, finish, m0, n);
    if (low > 0) {
      _tile_stored(1, tile, 4 * first);
      put(tile, first, low, here + 16, ld, finish, m0, n + 16);
    }
    if (second) {
      _tile_stored(2, tile, 4 * second);
      put(tile, second, rows, here + 16 * ld, ld, finish, m0 + 16, n);
      if (low > 0) {
        _tile_stored(3, tile, 4 * second);
        put(tile, second, low, here + 16 * ld + 16, ld, finish, m0 + 16, n + 16);
      }
    }
  }
  _tile_release();
}

struct MultiplyDense {
  void a() const { _tile_dpbf16ps(0, 4, 6); }
  void b() const { _tile_dpbf16ps(1, 5, 6); }
  void c() const { _tile_dpbf16ps(2, 4, 7); }
  void d() const { _tile_dpbf16ps(3, 5, 7); }
};

struct MultiplyInt8 {
  void a() const { _tile_dpbssd(0, 4, 6); }
  void b() const { _tile_dpbssd(1, 5, 6); }
  void c() const { _tile_dpbssd(2, 4, 7); }
  void d() const { _tile_dpbssd(3, 5, 7); }
};

struct FinishDense {
  __m512 operator()(__m512i v, Index, Index, __mmask16) const { return _mm512_castsi512_ps(v); }
};

struct FinishInt8 {
  const Int8Problem& p;
  __m512 operator()(__m512i v, Index m, Index n, __mmask16 mask) const {
    const __m512 scale = _mm512_mul_ps(_mm512_set1_ps(p.x_scale[m]),
                                       _mm512_maskz_loadu_ps(mask, p.w_scale + n));
    return _mm512_mul_ps(_mm512_cvtepi32_ps(v), scale);
  }
};

void dense(const DenseProblem& p, const Block& b) {
  products((const char*)p.w, 2 * p.k, (const char*)p.packed, b.m0, b.m1, b.n0, b.n1, b.out, b.ld,
           MultiplyDense{}, FinishDense{});
}

void int8(const Int8Problem& p, const Block& b) {
  if (p.m <= kFew) return avx512()->int8(p, b);  // sums are exact: the bits are the same
  products((const char*)p.w, p.k, (const char*)p.packed, b.m0, b.m1, b.n0, b.n1, b.out, b.ld,
           MultiplyInt8{}, FinishInt8{p});
}

void int4(const Int4Problem& p, const Block& b) { int4_vnni(p, b); }

void quantize(const float* x, Index k, Index kp, int8_t* q, float* scale) {
  quantize_row(x, k, kp, q, scale);
}
GRIFFIN_END

bool permitted() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  const unsigned wanted = (1u << 22) | (1u << 24) | (1u << 25);  // amx-bf16, -tile, -int8
  if ((d & wanted) != wanted) return false;
  return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */) == 0;
}
}  // namespace

const Kernels* amx() {
  // fp32 by AVX2: whoever has these has bf16
  static const Kernels kernels{"amx", dense,   avx2()->wide,        int8,   int4, quantize,
                               true, nullptr, avx2()->spread_wide, nullptr,
                               &avx2_kernels::kOneQueryAvx512,
                               &avx2_kernels::kBandAvx512};
  static const bool can = avx512() && permitted();
  return can ? &kernels : nullptr;
}
#else
const Kernels* amx() { return nullptr; }
#endif
}  // namespace griffin
