// Attention over a band of keys in bf16, forward and back, a block of queries at a time.
//
// Sums are fp32; what is multiplied is bf16: queries, keys, values and gradients as they come, the
// softmax and its gradient rounded to it. Two bf16 that are multiplied and added in one step lie
// side by side as one `Pair`.
#pragma once

#include "griffin.h"

namespace griffin {
using Pair = uint32_t;

constexpr Index kBandRows = 64;  // queries (times heads) of a block
constexpr Index kBandKeys = 48;  // of a tile; keys' and values' order has so many zeros behind

// One key head's keys and values, `width` columns (zeros up to a multiple of 16). by_key: the pairs
// of 16 keys side by side, (S / 16, width / 2, 16) of columns 2 c and 2 c + 1. by_column: (S / 2,
// width) of keys 2 j and 2 j + 1.
struct BandKeys {
  const Pair *k_by_key, *v_by_key, *k_by_column, *v_by_column;
  Index width;
  float scale;
};

// kBandRows queries, each seeing keys [first, end); rows of `width`. Missing ones are zero, with
// bounds of another.
struct BandQueries {
  const bf16* q;
  const int64_t *first, *end;
};

// What goes back. g: at the result. by_column: rows 2 r and 2 r + 1, (kBandRows / 2, width).
struct BandSlopes {
  const bf16* g;
  const Pair *q_by_column, *g_by_column;
  const float *lse, *delta;  // per row; delta: sum of g times the result
  float* at_q;               // (kBandRows, width)
  float *at_k, *at_v;        // rows of `width` from key `origin` on; what is found is added
  Index origin;              // a multiple of 16
};

struct BandKernel {
  // out (kBandRows, width), lse (kBandRows)
  void (*forward)(const BandKeys&, const BandQueries&, float* out, float* lse);
  void (*backward)(const BandKeys&, const BandQueries&, const BandSlopes&);
};
}  // namespace griffin
