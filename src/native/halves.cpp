// The halves of a residual block, each one call: x + mixer(norm(x)) and x + mlp(norm(x)).
//
// Called one by one from Python, the parts of a decode step take longer than its weights leave them.
// They are the library's own functions, in the order of the modules and rounded where those round:
// a half has the bits of its parts. What describes its weights is written once, as words of 8 bytes,
// by griffin_lm/layers/halves.py.
#include <algorithm>
#include <vector>

#include "calls.h"
#include "griffin.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
static_assert(sizeof(void*) == 8, "the descriptions below come as words of 8 bytes");
enum Kind : Index { kBf16, kFp32, kInt8, kInt4 };

struct Matrix {
  Index kind;
  const void *w, *scale, *sums, *bias;
  Index bias_wide, n, k;
};

struct Norm {
  const void* scale;
  Index scale_wide, offset;
  double eps;
};

struct Mlp {
  Index wide, width;
  Norm norm;
  Matrix gate, up, down;
  Index gelu;
};

struct Recurrent {
  Index wide, width;
  Norm norm;
  Matrix x_in, y_in, last;
  const void *conv_w, *conv_b;
  Index taps, heads;
  const void *a_w, *a_b, *i_w, *i_b;  // gates: (H, N, K), (H N)
  const float* rate;
};

struct Attention {
  Index wide, width;
  Norm norm;
  Matrix q, k, v, last;
  Index heads, kv_heads, head_width;
};

constexpr Index kSlice = 256;       // rows at a time: what lies between stays small
constexpr Index kNumbers = 1 << 14;  // of a task

#define GRIFFIN_LOOPS "halves.inl"
#include "each_isa.inl"

// Memory for what lies between the parts: this thread's, until its next half.
class Room {
 public:
  explicit Room(Index bytes) {
    static thread_local std::vector<char> memory;
    if (Index(memory.size()) < bytes + 64) memory.resize(size_t(bytes + 64));
    next_ = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
  }

  template <class Real = char>
  Real* take(Index bytes) {
    char* const here = next_;
    next_ += padded(bytes);
    return reinterpret_cast<Real*>(here);
  }

  static Index padded(Index bytes) { return (bytes + 63) / 64 * 64; }

 private:
  char* next_;
};

void normalise(const Norm& norm, const void* x, bool wide, void* out, Index rows, Index width,
               int threads) {
  griffin_norm(x, wide, norm.scale, int(norm.scale_wide), out, nullptr, rows, width,
               float(norm.eps), int(norm.offset), threads);
}

void multiply(const Matrix& m, const void* x, bool wide, void* y, Index rows, int threads) {
  const int bias_wide = int(m.bias_wide);
  switch (m.kind) {
    case kBf16:
      return griffin_linear_bf16(x, m.w, m.bias, bias_wide, y, 0, rows, m.k, m.n, threads);
    case kFp32:
      return griffin_linear_fp32(static_cast<const float*>(x), static_cast<const float*>(m.w),
                                 m.bias, bias_wide, static_cast<float*>(y), rows, m.k, m.n,
                                 threads);
    case kInt8:
      return griffin_linear_int8(x, static_cast<const int8_t*>(m.w),
                                 static_cast<const float*>(m.scale),
                                 static_cast<const int32_t*>(m.sums), m.bias, bias_wide, y, wide,
                                 rows, m.k, m.n, threads);
    default:
      return griffin_linear_int4(x, static_cast<const uint8_t*>(m.w), m.scale, m.bias, bias_wide,
                                 y, wide, rows, m.k, m.n, threads);
  }
}

void block_multiply(const void* x, const void* w, const void* b, bool wide, void* y, Index rows,
                    Index heads, Index width, int threads) {
  const Index each = width / heads;
  if (wide)
    griffin_block_linear_fp32(static_cast<const float*>(x), static_cast<const float*>(w),
                              static_cast<const float*>(b), static_cast<float*>(y), rows, heads,
                              each, each, threads);
  else griffin_block_linear_bf16(x, w, b, y, rows, heads, each, each, threads);
}

void add_to(const void* x, void* out, bool wide, Index count, int threads) {
  const auto run = GRIFFIN_PICK(add);
  for_each((count + kNumbers - 1) / kNumbers, threads, [&](Index piece) {
    run(x, out, wide, piece * kNumbers, std::min(count, (piece + 1) * kNumbers));
  });
}

template <class Real>
float number(const Real* x) {
  if constexpr (sizeof(Real) == 2) return from_bf16(*x);
  else return *x;
}

inline void put(float* to, float value) { *to = value; }
inline void put(bf16* to, float value) { *to = to_bf16(value); }

// Turns dimension j together with j + half in each of a token's heads, `width` apart, in place.
// Products are rounded before they are added, as PyTorch's are: in memory, where no compiler makes
// one operation of both.
template <class Real>
void rotate(Real* x, Index heads, Index width, const float* cos, const float* sin, Index half) {
  constexpr Index kSome = 64;
  float products[4][kSome];
  for (Index h = 0; h < heads; ++h, x += width)
    for (Index j0 = 0; j0 < half; j0 += kSome) {
      const Index count = std::min(kSome, half - j0);
      for (Index j = 0; j < count; ++j) {
        const float left = number(x + j0 + j), right = number(x + half + j0 + j);
        products[0][j] = left * cos[j0 + j];
        products[1][j] = right * sin[j0 + j];
        products[2][j] = right * cos[j0 + j];
        products[3][j] = left * sin[j0 + j];
      }
      for (Index j = 0; j < count; ++j) {
        put(x + j0 + j, products[0][j] - products[1][j]);
        put(x + half + j0 + j, products[2][j] + products[3][j]);
      }
    }
}

// cos, sin: (rows, half).
void turn(void* x, bool wide, Index rows, Index heads, Index head_width, const float* cos,
          const float* sin, Index half, int threads) {
  const Index width = heads * head_width, piece = std::max<Index>(1, kNumbers / width);
  for_each((rows + piece - 1) / piece, threads, [&](Index task) {
    for (Index r = task * piece; r < std::min(rows, (task + 1) * piece); ++r) {
      const float *c = cos + r * half, *s = sin + r * half;
      if (wide) rotate(static_cast<float*>(x) + r * width, heads, head_width, c, s, half);
      else rotate(static_cast<bf16*>(x) + r * width, heads, head_width, c, s, half);
    }
  });
}

// h1 and past1 may be h0 and past.
void recurrent(const Recurrent& p, const void* x, void* out, Index batch, Index steps,
               const uint8_t* starts, const int64_t* position, const float* h0, const void* past,
               float* h1, void* past1, int threads) {
  const bool wide = p.wide != 0;
  const Index size = wide ? 4 : 2, rows = batch * steps, inner = p.x_in.n, kept = p.taps - 1;
  const Index branch = rows * inner * size;
  Room room(Room::padded(rows * p.width * size) + 5 * Room::padded(branch) +
            Room::padded(rows * inner * 4));
  char* const normed = room.take(rows * p.width * size);
  char* const u = room.take(branch);
  char* const y = room.take(branch);
  char* const mixed = room.take(branch);
  char* const r = room.take(branch);
  char* const i = room.take(branch);
  float* const hs = room.take<float>(rows * inner * 4);
  normalise(p.norm, x, wide, normed, rows, p.width, threads);
  multiply(p.x_in, normed, wide, u, rows, threads);
  multiply(p.y_in, normed, wide, y, rows, threads);
  griffin_conv(u, past, p.conv_w, p.conv_b, wide, position, mixed, batch, steps, inner, p.taps,
               threads);
  block_multiply(mixed, p.a_w, p.a_b, wide, r, rows, p.heads, inner, threads);
  block_multiply(mixed, p.i_w, p.i_b, wide, i, rows, p.heads, inner, threads);
  griffin_rg_lru(mixed, r, i, wide, p.rate, starts, h0, hs, batch, steps, inner, threads);
  griffin_gate(y, wide, hs, 1, y, 1, rows * inner, threads);
  multiply(p.last, y, wide, out, rows, threads);
  add_to(x, out, wide, rows * p.width, threads);
  const Index row = inner * size;  // bytes
  for (Index b = 0; b < batch; ++b) {
    std::memcpy(h1 + b * inner, hs + ((b + 1) * steps - 1) * inner, size_t(inner) * 4);
    for (Index s = 0; s < kept; ++s) {  // of the inputs before and in this call the last ones
      const Index at = steps + s - kept;
      const char* from = at < 0 ? static_cast<const char*>(past) + (b * kept + at + kept) * row
                                : u + (b * steps + at) * row;
      std::memcpy(static_cast<char*>(past1) + (b * kept + s) * row, from, size_t(row));
    }
  }
}
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
// x, out: (rows, width).
EXPORT void griffin_mlp_half(const void* description, const void* x, void* out, Index rows,
                             int threads) {
  const Mlp& p = *static_cast<const Mlp*>(description);
  const bool wide = p.wide != 0;
  const Index size = wide ? 4 : 2, inner = p.gate.n, most = std::min(rows, kSlice);
  Room room(Room::padded(most * p.width * size) + 2 * Room::padded(most * inner * size));
  char* const normed = room.take(most * p.width * size);
  char* const gate = room.take(most * inner * size);
  char* const up = room.take(most * inner * size);
  for (Index r = 0; r < rows; r += kSlice) {
    const Index some = std::min(kSlice, rows - r);
    const char* from = static_cast<const char*>(x) + r * p.width * size;
    char* to = static_cast<char*>(out) + r * p.width * size;
    normalise(p.norm, from, wide, normed, some, p.width, threads);
    multiply(p.gate, normed, wide, gate, some, threads);
    multiply(p.up, normed, wide, up, some, threads);
    griffin_gate(gate, wide, up, wide, gate, int(p.gelu), some * inner, threads);
    multiply(p.down, gate, wide, to, some, threads);
    add_to(from, to, wide, some * p.width, threads);
  }
}

// x, out: (B, T, width), every token valid; h0, h1: (B, R); past, past1: (B, C - 1, R), the state
// before and after, each memory of its own.
EXPORT void griffin_recurrent_half(const void* description, const void* x, void* out, Index batch,
                                   Index steps, const uint8_t* starts, const int64_t* position,
                                   const float* h0, const void* past, float* h1, void* past1,
                                   int threads) {
  const Recurrent& p = *static_cast<const Recurrent*>(description);
  const Index slice = batch == 1 ? kSlice : steps, row = p.width * (p.wide ? 4 : 2);
  for (Index t = 0; t < steps; t += slice)
    recurrent(p, static_cast<const char*>(x) + t * row, static_cast<char*>(out) + t * row, batch,
              std::min(slice, steps - t), starts + t, position + t, t ? h1 : h0, t ? past1 : past,
              h1, past1, threads);
}

// x, out: (B, T, width), every token valid, T at most N; cos, sin: (B, T, half); the rings (B, N, K
// D) are written in place; read, counts (B), position (B, T).
EXPORT void griffin_attention_half(const void* description, const void* x, void* out, Index batch,
                                   Index steps, const float* cos, const float* sin, Index half,
                                   void* ring_k, void* ring_v, Index slots, const int64_t* read,
                                   const int64_t* position, const int64_t* counts, int threads) {
  const Attention& p = *static_cast<const Attention*>(description);
  const bool wide = p.wide != 0;
  const Index size = wide ? 4 : 2, rows = batch * steps;
  const Index inner = p.heads * p.head_width * size, shared = p.kv_heads * p.head_width * size;
  Room room(Room::padded(rows * p.width * size) + 2 * Room::padded(rows * inner) +
            2 * Room::padded(rows * shared) + Room::padded(rows * 8));
  char* const normed = room.take(rows * p.width * size);
  char* const q = room.take(rows * inner);
  char* const mixed = room.take(rows * inner);
  char* const k = room.take(rows * shared);
  char* const v = room.take(rows * shared);
  int64_t* const seen = room.take<int64_t>(rows * 8);
  for (Index row = 0; row < rows; ++row)  // in the document, in the window, and read at all
    seen[row] = std::min({position[row], slots, read[row / steps] + row % steps});
  normalise(p.norm, x, wide, normed, rows, p.width, threads);
  multiply(p.q, normed, wide, q, rows, threads);
  multiply(p.k, normed, wide, k, rows, threads);
  multiply(p.v, normed, wide, v, rows, threads);
  if (half) {
    turn(q, wide, rows, p.heads, p.head_width, cos, sin, half, threads);
    turn(k, wide, rows, p.kv_heads, p.head_width, cos, sin, half, threads);
  }
  griffin_ring_attention(q, k, v, ring_k, ring_v, wide, read, seen, mixed, batch, steps, p.heads,
                         p.kv_heads, p.head_width, slots, threads);
  griffin_write_ring(ring_k, k, read, counts, batch, steps, slots, shared);
  griffin_write_ring(ring_v, v, read, counts, batch, steps, slots, shared);
  multiply(p.last, mixed, wide, out, rows, threads);
  add_to(x, out, wide, rows * p.width, threads);
}
}
