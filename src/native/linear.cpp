// The products as a caller asks for them: packing, blocks, threads, bias, rounding.
#include <algorithm>
#include <vector>

#include "griffin.h"
#include "select.h"

namespace griffin {
namespace {

constexpr Index kCache = 1 << 20;  // bytes of w that a task goes through once per block of x

// Rows of w in a task: few enough to stay in the second-level cache, many enough to be worth it.
Index chunk_rows(Index n, Index row_bytes, Index m, int threads, bool spread) {
  Index rows = std::max<Index>(kRows, kCache / std::max<Index>(1, row_bytes) / kRows * kRows);
  rows = std::min<Index>(rows, 256);
  if (m <= kRows || spread) rows = std::min<Index>(rows, kColumns);  // small tasks end together
  const Index share = (n + 4 * threads - 1) / (4 * threads);  // four tasks a thread at least
  return std::max<Index>(kRows, std::min(rows, (share + kRows - 1) / kRows * kRows));
}

// Rows of `bytes` each, as words of four: for every 16 rows (words, rows, 4 bytes), zero-padded.
void pack(const char* x, Index m, Index stride, Index bytes, Index words, char* out, int threads) {
  for_each((m + 15) / 16, threads, [&](Index part) {
    const Index m0 = part * 16, count = std::min<Index>(16, m - m0);
    char* to = out + m0 * words * 4;
    for (Index r = 0; r < count; ++r) {
      const char* from = x + (m0 + r) * stride;
      const Index whole = bytes / 4;
      for (Index i = 0; i < whole; ++i) std::memcpy(to + (i * count + r) * 4, from + 4 * i, 4);
      for (Index i = whole; i < words; ++i) {
        char word[4] = {};
        for (Index j = 4 * i; j < bytes && j < 4 * i + 4; ++j) word[j - 4 * i] = from[j];
        std::memcpy(to + (i * count + r) * 4, word, 4);
      }
    }
  });
}

struct Output {
  void* y;           // (M, N), bf16 or fp32
  bool wide;         // y is fp32
  const void* bias;  // (N), bf16 or fp32, or null
  bool bias_wide;    // bias is fp32
  Index stride;      // of y's rows

  // Of rows m0 and on.
  Output from(Index m0) const {
    Output rest = *this;
    rest.y = static_cast<char*>(y) + m0 * stride * (wide ? 4 : 2);
    return rest;
  }

  // The block's row `from` + bias, rounded, into columns n0 .. n1 - 1 of row m.
  void store(float* from, Index m, Index n0, Index n1) const {
    const Index count = n1 - n0;
    if (bias && bias_wide) {
      const float* b = static_cast<const float*>(bias) + n0;
      for (Index i = 0; i < count; ++i) from[i] += b[i];
    } else if (bias) {
      const bf16* b = static_cast<const bf16*>(bias) + n0;
      for (Index i = 0; i < count; ++i) from[i] += from_bf16(b[i]);
    }
    if (wide) {
      std::memcpy(static_cast<float*>(y) + m * stride + n0, from, size_t(count) * 4);
    } else {
      bf16* to = static_cast<bf16*>(y) + m * stride + n0;
      for (Index i = 0; i < count; ++i) to[i] = to_bf16(from[i]);
    }
  }
};

template <class Product>
void run(Index m, Index n, Index row_bytes, int threads, const Spread* spread,
         const Output& output, Product&& product) {
  const Index rows = chunk_rows(n, row_bytes, m, threads, spread), step = spread ? m : kRows;
  for_each((n + rows - 1) / rows, threads, [&](Index part) {
    static thread_local std::vector<float> block;
    if (Index(block.size()) < std::min(m, step) * rows) block.resize(std::min(m, step) * rows);
    const Index n0 = part * rows, n1 = std::min(n, n0 + rows);
    for (Index m0 = 0; m0 < m; m0 += step) {
      const Index m1 = std::min(m, m0 + step);
      product(Block{m0, m1, n0, n1, block.data(), rows});
      for (Index i = m0; i < m1; ++i) output.store(block.data() + (i - m0) * rows, i, n0, n1);
    }
  });
}

// Rows of x at a time: memory for what a kernel makes of them stays bounded.
template <class Slice>
void in_slices(Index m, const Spread* spread, Slice&& slice) {
  const Index step = spread ? spread->rows : std::max<Index>(1, m);
  for (Index m0 = 0; m0 < m; m0 += step) slice(m0, std::min(m, m0 + step));
}

// x as `how` wants it, or null: it lies there until this thread's next product.
template <class Real>
const void* spread(const Spread* how, const Real* x, Index m, Index stride, Index k, int threads) {
  if (!how) return nullptr;
  static thread_local std::vector<char> memory;
  const Index bytes = how->bytes(k), group = how->group_of(m);
  if (Index(memory.size()) < m * bytes + 64) memory.resize(size_t(m * bytes + 64));
  char* to = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64);
  for_each((m + group - 1) / group, threads, [&](Index part) {
    const Index m0 = part * group;
    how->put(x + m0 * stride, stride, k, std::min(group, m - m0), to + m0 * bytes);
  });
  return to;
}

// int8 rows, their scales, and what the kernels want besides.
struct Quantized {
  std::vector<int8_t> q;
  std::vector<float> scale;
  Index kp;

  Quantized(const void* x, bool wide, Index m, Index k, const Kernels& kernels, int threads)
      : q(size_t(m * ((k + kPad - 1) / kPad * kPad))), scale(size_t(m)),
        kp((k + kPad - 1) / kPad * kPad) {
    for_each(m, threads, [&](Index row) {
      static thread_local std::vector<float> copy;
      const float* from = static_cast<const float*>(x) + row * k;
      if (!wide) {
        copy.resize(size_t(k));
        const bf16* narrow = static_cast<const bf16*>(x) + row * k;
        for (Index i = 0; i < k; ++i) copy[size_t(i)] = from_bf16(narrow[i]);
        from = copy.data();
      }
      kernels.quantize(from, k, kp, q.data() + row * kp, scale.data() + row);
    });
  }
};

}  // namespace

template <class Real>
void linear(void (*kernel)(const Dense<Real>&, const Block&), const Spread* how, const Real* x,
            Index stride, const Real* w, Index m, Index k, Index n, const Output& output,
            int threads) {
  Dense<Real> p{x, nullptr, nullptr, w, m, n, k, stride};
  p.spread = static_cast<const float*>(spread(how, x, m, stride, k, threads));
  static thread_local std::vector<char> packed;
  if (selected().packs && !how) {
    const Index words = (2 * k + 63) / 64 * 16;
    packed.resize(size_t((m + 15) / 16 * 16 * words * 4));
    pack(reinterpret_cast<const char*>(x), m, 2 * stride, 2 * k, words, packed.data(), threads);
    p.packed = reinterpret_cast<const Real*>(packed.data());
  }
  run(m, n, k * Index(sizeof(Real)), threads, how, output,
      [&](const Block& b) { kernel(p, b); });
}

void linear_dense(const bf16* x, Index stride, const bf16* w, Index m, Index k, Index n,
                  const Output& output, int threads) {
  const Kernels& use = selected();
  in_slices(m, use.spread_dense, [&](Index m0, Index m1) {
    linear<bf16>(use.dense, use.spread_dense, x + m0 * stride, stride, w, m1 - m0, k, n,
                 output.from(m0), threads);
  });
}

void linear_wide(const float* x, Index stride, const float* w, Index m, Index k, Index n,
                 const Output& output, int threads) {
  const Kernels& use = selected();
  in_slices(m, use.spread_wide, [&](Index m0, Index m1) {
    linear<float>(use.wide, use.spread_wide, x + m0 * stride, stride, w, m1 - m0, k, n,
                  output.from(m0), threads);
  });
}

const void* at(const void* x, bool wide, Index number) {
  return static_cast<const char*>(x) + number * (wide ? 4 : 2);
}

void linear_int8(const void* x, bool wide, const int8_t* w, const float* scale,
                 const int32_t* sums, Index m, Index k, Index n, const Output& output,
                 int threads) {
  const Kernels& kernels = selected();
  const Quantized in(x, wide, m, k, kernels, threads);
  Int8Problem p{in.q.data(), nullptr, nullptr, in.scale.data(), w, scale, sums, m, n, k, in.kp};
  p.spread = static_cast<const int16_t*>(
      spread(kernels.spread_int8, in.q.data(), m, in.kp, in.kp, threads));
  std::vector<char> packed;
  if (kernels.packs) {
    packed.resize(size_t((m + 15) / 16 * 16 * in.kp));
    pack(reinterpret_cast<const char*>(in.q.data()), m, in.kp, in.kp, in.kp / 4, packed.data(),
         threads);
    p.packed = reinterpret_cast<const int8_t*>(packed.data());
  }
  run(m, n, k, threads, kernels.spread_int8, output, [&](const Block& b) { kernels.int8(p, b); });
}

void linear_int4(const void* x, bool wide, const uint8_t* w, const bf16* scale, Index m, Index k,
                 Index n, const Output& output, int threads) {
  const Kernels& kernels = selected();
  const Quantized in(x, wide, m, k, kernels, threads);
  std::vector<int32_t> sums(size_t(m * (in.kp / kGroup)));
  for_each((m + 15) / 16, threads, [&](Index part) {
    const Index groups = in.kp / kGroup, end = std::min(m, part * 16 + 16) * groups;
    for (Index i = part * 16 * groups; i < end; ++i) {
      int32_t sum = 0;
      for (Index j = 0; j < kGroup; ++j) sum += in.q[size_t(i * kGroup + j)];
      sums[size_t(i)] = 8 * sum;
    }
  });
  const Index whole = (k + kGroup - 1) / kGroup * kGroup;  // w is filled up with zeros
  const Int4Problem p{in.q.data(), sums.data(), in.scale.data(), w, scale, m, n, whole, in.kp};
  run(m, n, whole / 2 + whole / 16, threads, nullptr, output,
      [&](const Block& b) { kernels.int4(p, b); });
}

}  // namespace griffin

using namespace griffin;

extern "C" {
// Kinds of numbers: 0 bf16, 1 fp32. bias may be null. x is of y's kind where it isn't bf16 anyway.
EXPORT void griffin_linear_bf16(const void* x, const void* w, const void* bias, int bias_kind,
                                void* y, int kind, Index m, Index k, Index n, int threads) {
  linear_dense(static_cast<const bf16*>(x), k, static_cast<const bf16*>(w), m, k, n,
               Output{y, kind != 0, bias, bias_kind != 0, n}, threads);
}

// Blocks side by side: x (M, H K), w (H, N, K), bias and y (M, H N), all bf16; a thread a block.
EXPORT void griffin_block_linear_bf16(const void* x, const void* w, const void* bias, void* y,
                                      Index m, Index blocks, Index k, Index n, int threads) {
  for_each(blocks, threads, [&](Index h) {
    linear_dense(static_cast<const bf16*>(x) + h * k, blocks * k,
                 static_cast<const bf16*>(w) + h * n * k, m, k, n,
                 Output{static_cast<bf16*>(y) + h * n, false,
                        bias ? static_cast<const bf16*>(bias) + h * n : nullptr, false,
                        blocks * n},
                 1);
  });
}

// The same in fp32: x, w, y; bias (N) bf16 or fp32.
EXPORT void griffin_linear_fp32(const float* x, const float* w, const void* bias, int bias_kind,
                                float* y, Index m, Index k, Index n, int threads) {
  linear_wide(x, k, w, m, k, n, Output{y, true, bias, bias_kind != 0, n}, threads);
}

EXPORT void griffin_block_linear_fp32(const float* x, const float* w, const float* bias, float* y,
                                      Index m, Index blocks, Index k, Index n, int threads) {
  for_each(blocks, threads, [&](Index h) {
    linear_wide(x + h * k, blocks * k, w + h * n * k, m, k, n,
                Output{y + h * n, true, bias ? bias + h * n : nullptr, true, blocks * n}, 1);
  });
}

EXPORT void griffin_linear_int8(const void* x, const int8_t* w, const float* scale,
                                const int32_t* sums, const void* bias, int bias_kind, void* y,
                                int kind, Index m, Index k, Index n, int threads) {
  const Output output{y, kind != 0, bias, bias_kind != 0, n};
  in_slices(m, selected().spread_int8, [&](Index m0, Index m1) {
    linear_int8(at(x, kind != 0, m0 * k), kind != 0, w, scale, sums, m1 - m0, k, n,
                output.from(m0), threads);
  });
}

EXPORT void griffin_linear_int4(const void* x, const uint8_t* w, const void* scale,
                                const void* bias, int bias_kind, void* y, int kind, Index m,
                                Index k, Index n, int threads) {
  linear_int4(x, kind != 0, w, static_cast<const bf16*>(scale), m, k, n,
              Output{y, kind != 0, bias, bias_kind != 0, n}, threads);
}
}
