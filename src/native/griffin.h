// The kernels' vocabulary. Plain functions on pointers and sizes: no Python, no torch.
//
// Matrices are row-major unless said otherwise: x (M, K) activations, w (N, K) weights,
// y = x w^T (+ bias). One arithmetic per weight type: the order of additions over K never depends
// on M, on the number of threads or on where a row stands, so a row gets the same bits in any batch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

// Before a loop whose turns don't touch each other's memory.
#if defined(__clang__)
#define GRIFFIN_INDEPENDENT _Pragma("clang loop vectorize(assume_safety)")
#elif defined(__GNUC__)
#define GRIFFIN_INDEPENDENT _Pragma("GCC ivdep")
#else
#define GRIFFIN_INDEPENDENT
#endif

namespace griffin {

using Index = int64_t;
using bf16 = uint16_t;

inline float from_bf16(bf16 x) {
  uint32_t bits = uint32_t(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// Round to nearest, ties to even; NaN stays NaN.
inline bf16 to_bf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1)) >> 16;
  return bf16((bits & 0x7fffffffu) > 0x7f800000u ? (bits >> 16) | 0x40 : rounded);
}

constexpr Index kGroup = 32;   // int4: weights of a row that share one scale
constexpr Index kPanel = 16;   // int4: rows that lie interleaved
constexpr Index kPad = 64;     // int8 activations: zeros up to a multiple of this
constexpr Index kRows = 32;    // of x that one call of a kernel takes at most, unless it says more
constexpr Index kColumns = 64; // of w in a block of a kernel that spreads x; ld is a multiple of 32

// A block of the product: rows [m0, m1) of x, rows [n0, n1) of w, written in fp32 to
// out[(m - m0) * ld + (n - n0)]; what lies behind n1 - n0 in a row of `out` may be overwritten.
struct Block {
  Index m0, m1, n0, n1;
  float* out;
  Index ld;
};

// Real: bf16 or float. Sums are fp32.
template <class Real>
struct Dense {
  const Real* x;       // (M, K), rows `stride` apart
  const Real* packed;  // x in the kernel's own order, where it wants one
  const float* spread; // x as the kernel's Spread makes it, where it has one
  const Real* w;       // (N, K)
  Index m, n, k, stride;
};
using DenseProblem = Dense<bf16>;
using WideProblem = Dense<float>;

// y[m, n] = x_scale[m] * w_scale[n] * sum_k q[m, k] w[n, k]; the sum is exact in int32.
struct Int8Problem {
  const int8_t* q;        // (M, Kp) activations, Kp: K up to a multiple of kPad
  const int8_t* packed;   // q in the kernel's own order, where it wants one
  const int16_t* spread;  // q as the kernel's Spread makes it, where it has one
  const float* x_scale;   // (M)
  const int8_t* w;        // (N, K)
  const float* w_scale;   // (N)
  const int32_t* w_sums;  // (N): sum_k w[n, k]
  Index m, n, k, kp;
};

// y[m, n] = x_scale[m] * sum_g scale[n, g] * s(m, n, g), where s = sum over the group's 32 k of
// q[m, k] (nibble[n, k] - 8) is exact, and the sum over g runs upwards in fp32 with one fma each.
//
// Weights lie in panels of 16 rows: for panel p and group g 256 bytes, four runs of 64; byte
// 4 i + j of run r holds in its low nibble row i, k = 4 r + j, and in its high one k = 4 r + 16 + j.
// Scales: bf16 (N / 16, K / 32, 16). K is a multiple of 32; panels are whole, whatever N is.
struct Int4Problem {
  const int8_t* q;        // (M, Kp)
  const int32_t* q_sums;  // (M, Kp / 32): 8 * sum of each group's q
  const float* x_scale;   // (M)
  const uint8_t* w;
  const bf16* scale;
  Index m, n, k, kp;
};

// x as a kernel wants to read it many times: wider numbers, rows of a group side by side. Rows
// [m, m + count) of a group, count <= group, begin at byte m * bytes(k).
struct Spread {
  Index group, few_group, few;  // few_group: where x has at most `few` rows
  Index rows;                   // of x in a block at most
  Index (*bytes)(Index k);
  void (*put)(const void* x, Index stride, Index k, Index count, void* to);
  Index group_of(Index m) const { return m <= few ? few_group : group; }
};

// Attention of one query, straight from bf16 keys and values (rows of `width`, a multiple of 16).
// queries: `rows` heads as avx2_tile.h spreads them; scores and shares: (rows, room) fp32.
struct OneQuery {
  void (*scores)(const bf16* const* keys, Index count, const float* queries, Index rows,
                 Index width, float* out, Index room);  // writes up to 7 more than `count`
  void (*add)(const bf16* const* values, Index count, const float* shares, Index room, Index rows,
              Index width, float* sums);
};

struct BandKernel;  // band_bf16.h

// What one instruction set offers.
struct Kernels {
  const char* name;
  void (*dense)(const DenseProblem&, const Block&);
  void (*wide)(const WideProblem&, const Block&);
  void (*int8)(const Int8Problem&, const Block&);
  void (*int4)(const Int4Problem&, const Block&);
  // fp32 (k) -> int8 (kp) and its scale: max |x| / 127, to nearest even
  void (*quantize)(const float* x, Index k, Index kp, int8_t* q, float* scale);
  bool packs;  // dense and int8 want `packed`
  const Spread *spread_dense, *spread_wide, *spread_int8;  // null: x is read as it lies
  const OneQuery* one_query;  // null: as many queries are
  const BandKernel* band;     // null: none
};

const Kernels* portable();
const Kernels* avx2();    // null where this build or this machine has none
const Kernels* avx512();
const Kernels* amx();

// Runs task(arg, piece) for piece = 0 .. count - 1 on up to `threads` threads, this one included.
void parallel(Index count, int threads, void (*task)(void*, Index), void* arg);

template <class F>
void for_each(Index count, int threads, F&& body) {
  parallel(count, threads, [](void* f, Index i) { (*static_cast<F*>(f))(i); }, &body);
}

}  // namespace griffin
