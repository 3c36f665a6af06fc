// Attention over a band in bf16: lays keys, values and queries out for a block's kernel, and shares
// the blocks among threads.
#include <algorithm>
#include <memory>
#include <vector>

#include "band_bf16.h"
#include "select.h"

namespace griffin {
namespace {
// Of the way back, about: their number decides in which order sums are added, so it may not depend
// on the threads'. Each has sums of its own for the keys that it reaches.
constexpr Index kPieces = 16;

struct Band {
  const bf16 *q, *k, *v;
  const int64_t *first, *last;  // (batch, steps)
  Index batch, steps, seen, heads, kv_heads, columns;

  Index shared() const { return heads / kv_heads; }
  Index units() const { return batch * kv_heads; }
  Index rows() const { return steps * shared(); }  // of a unit
  Index blocks() const { return (rows() + kBandRows - 1) / kBandRows; }
  Index width() const { return (columns + 15) / 16 * 16; }
  Index padded() const { return (seen + 15) / 16 * 16 + kBandKeys; }  // keys
  // where a unit's row lies in q, and what is shaped like it
  Index at(Index unit, Index row) const {
    const Index b = unit / kv_heads, head = unit % kv_heads * shared() + row % shared();
    return ((b * steps + row / shared()) * heads + head) * columns;
  }
};

inline Pair pair_of(bf16 a, bf16 b) { return Pair(a) | Pair(b) << 16; }

// One unit's rows of k or v in both orders; either may be null.
void lay_out(const Band& band, const bf16* from, Index unit, Pair* by_key, Pair* by_column) {
  const Index half = band.width() / 2, width = band.width(), columns = band.columns;
  const Index b = unit / band.kv_heads, head = unit % band.kv_heads;
  const auto row = [&](Index j) {
    return from + ((b * band.seen + j) * band.kv_heads + head) * columns;
  };
  if (by_key) std::memset(by_key, 0, size_t(band.padded() * half) * sizeof(Pair));
  if (by_column) std::memset(by_column, 0, size_t(band.padded() * half) * sizeof(Pair));
  for (Index j = 0; j < band.seen; ++j) {
    const bf16* x = row(j);
    if (by_key) {
      Pair* to = by_key + j / 16 * 16 * half + j % 16;
      for (Index c = 0; c < columns / 2; ++c) to[c * 16] = pair_of(x[2 * c], x[2 * c + 1]);
      if (columns % 2) to[columns / 2 * 16] = pair_of(x[columns - 1], 0);
    }
    if (by_column && j % 2 == 0) {
      const bf16* next = j + 1 < band.seen ? row(j + 1) : nullptr;
      Pair* to = by_column + j / 2 * width;
      for (Index c = 0; c < columns; ++c) to[c] = pair_of(x[c], next ? next[c] : bf16(0));
    }
  }
}

// All units' keys and values as the kernel wants them.
class Layout {
 public:
  Layout(const Band& band, bool back, int threads)
      : band_(band), each_(band.padded() * band.width() / 2), back_(back) {
    const int kinds = back ? 3 : 2;
    room_.reset(new Pair[size_t(kinds * band.units() * each_)]);
    for_each(band.units() * kinds, threads, [&](Index task) {
      const Index unit = task / kinds, kind = task % kinds;
      Pair* to = part(kind, unit);
      if (kind == 0) lay_out(band, band.k, unit, to, nullptr);
      else if (!back) lay_out(band, band.v, unit, nullptr, to);
      else if (kind == 1) lay_out(band, band.k, unit, nullptr, to);
      else lay_out(band, band.v, unit, to, nullptr);
    });
  }
  BandKeys of(Index unit, float scale) const {
    if (!back_) return {part(0, unit), nullptr, nullptr, part(1, unit), band_.width(), scale};
    return {part(0, unit), part(2, unit), part(1, unit), nullptr, band_.width(), scale};
  }

 private:
  Pair* part(Index kind, Index unit) const {
    return room_.get() + (kind * band_.units() + unit) * each_;
  }
  const Band& band_;
  Index each_;
  bool back_;
  std::unique_ptr<Pair[]> room_;
};

// A block's queries, and whatever else is shaped like them, with zeros for rows that are missing.
struct Rows {
  Rows(const Band& band, Index unit, Index begin) : band(band), unit(unit), begin(begin) {
    count = std::min(kBandRows, band.rows() - begin);
    const Index b = unit / band.kv_heads;
    for (Index r = 0; r < kBandRows; ++r) {
      const Index t = (begin + std::min(r, count - 1)) / band.shared();
      first[r] = band.first[b * band.steps + t], end[r] = band.last[b * band.steps + t] + 1;
    }
  }
  void gather(const bf16* from, bf16* to) const {
    const Index width = band.width();
    for (Index r = 0; r < kBandRows; ++r, to += width) {
      const Index some = r < count ? band.columns : 0;
      if (some) std::memcpy(to, from + band.at(unit, begin + r), size_t(some) * sizeof(bf16));
      std::fill(to + some, to + width, bf16(0));
    }
  }
  void scatter(const float* from, bf16* to) const {
    for (Index r = 0; r < count; ++r)
      for (Index d = 0; d < band.columns; ++d)
        to[band.at(unit, begin + r) + d] = to_bf16(from[r * band.width() + d]);
  }
  const Band& band;
  Index unit, begin, count;
  int64_t first[kBandRows], end[kBandRows];
};

void by_column(const bf16* rows, Index width, Pair* to) {
  for (Index r = 0; r < kBandRows; r += 2)
    for (Index d = 0; d < width; ++d)
      *to++ = pair_of(rows[r * width + d], rows[(r + 1) * width + d]);
}

// Queries of a unit that go back one after another, and the keys that they reach.
struct Piece {
  Index unit, begin, end;  // of its rows
  Index low, high;         // low: a multiple of 16; high: what the last tile may touch
  std::unique_ptr<float[]> sums;  // (2, high - low, width): gradients at keys and at values

  Piece(const Band& band, Index unit, Index begin, Index end)
      : unit(unit), begin(begin), end(end), low(band.seen), high(0) {
    const int64_t* first = band.first + unit / band.kv_heads * band.steps;
    const int64_t* last = band.last + unit / band.kv_heads * band.steps;
    for (Index t = begin / band.shared(); t <= (end - 1) / band.shared(); ++t)
      low = std::min<Index>(low, first[t]), high = std::max<Index>(high, last[t]);
    low -= low % 16, high += 1 + kBandKeys;
  }
};

void go_back(const Band& band, const BandKeys& keys, const bf16* out, const float* lse,
             const bf16* g, bf16* at_q, Piece& piece) {
  const Index width = keys.width, span = piece.high - piece.low, size = kBandRows * width;
  piece.sums.reset(new float[size_t(2 * span * width)]());
  std::vector<bf16> q(size), slope(size), result(size);
  std::vector<Pair> q_by_column(size / 2), slope_by_column(size / 2);
  std::vector<float> at_rows(size);
  float sums[kBandRows], delta[kBandRows];
  for (Index begin = piece.begin; begin < piece.end; begin += kBandRows) {
    const Rows rows(band, piece.unit, begin);
    rows.gather(band.q, q.data()), rows.gather(g, slope.data()), rows.gather(out, result.data());
    by_column(q.data(), width, q_by_column.data());
    by_column(slope.data(), width, slope_by_column.data());
    for (Index r = 0; r < kBandRows; ++r) {
      sums[r] = r < rows.count ? lse[piece.unit * band.rows() + begin + r] : 0;
      delta[r] = 0;
      for (Index d = 0; d < width; ++d)
        delta[r] += from_bf16(slope[r * width + d]) * from_bf16(result[r * width + d]);
    }
    const BandSlopes back{slope.data(), q_by_column.data(), slope_by_column.data(), sums, delta,
                          at_rows.data(), piece.sums.get(), piece.sums.get() + span * width,
                          piece.low};
    selected().band->backward(keys, {q.data(), rows.first, rows.end}, back);
    rows.scatter(at_rows.data(), at_q);
  }
}

// The pieces' sums of keys [begin, end), added in the pieces' order.
void add_up(const Band& band, const std::vector<Piece>& pieces, Index unit, Index begin, Index end,
            bf16* at_k, bf16* at_v) {
  const Index width = band.width(), b = unit / band.kv_heads, head = unit % band.kv_heads;
  std::vector<float> sums(size_t(2 * width));
  for (Index j = begin; j < end; ++j) {
    std::fill(sums.begin(), sums.end(), 0.0f);
    for (const Piece& piece : pieces) {
      if (piece.unit != unit || j < piece.low || j >= piece.high) continue;
      const Index span = piece.high - piece.low;
      const float* from = piece.sums.get() + (j - piece.low) * width;
      for (Index d = 0; d < width; ++d)
        sums[d] += from[d], sums[width + d] += from[span * width + d];
    }
    const Index to = ((b * band.seen + j) * band.kv_heads + head) * band.columns;
    for (Index d = 0; d < band.columns; ++d)
      at_k[to + d] = to_bf16(sums[d]), at_v[to + d] = to_bf16(sums[width + d]);
  }
}
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
// Whether the instruction set in use has a kernel for it.
EXPORT int griffin_has_band() { return selected().band != nullptr; }

// q and out (B, T, H, D), k and v (B, S, K, D), lse (B K, T H / K); first <= last (B, T): the keys
// that a query sees.
EXPORT void griffin_band_forward(const void* q, const void* k, const void* v, const int64_t* first,
                                 const int64_t* last, void* out, float* lse, Index batch,
                                 Index steps, Index seen, Index heads, Index kv_heads,
                                 Index columns, float scale, int threads) {
  const Band band{static_cast<const bf16*>(q), static_cast<const bf16*>(k),
                  static_cast<const bf16*>(v), first, last, batch, steps, seen, heads, kv_heads,
                  columns};
  const Layout layout(band, false, threads);
  for_each(band.units() * band.blocks(), threads, [&](Index task) {
    const Rows rows(band, task / band.blocks(), task % band.blocks() * kBandRows);
    const Index width = band.width();
    std::vector<bf16> narrow(size_t(kBandRows * width));
    std::vector<float> result(size_t(kBandRows * width));
    float sums[kBandRows];
    rows.gather(band.q, narrow.data());
    selected().band->forward(layout.of(rows.unit, scale), {narrow.data(), rows.first, rows.end},
                             result.data(), sums);
    rows.scatter(result.data(), static_cast<bf16*>(out));
    std::copy(sums, sums + rows.count, lse + rows.unit * band.rows() + rows.begin);
  });
}

// g, at_q as q; at_k, at_v as k. out and lse as the way forward wrote them.
EXPORT void griffin_band_backward(const void* q, const void* k, const void* v,
                                  const int64_t* first, const int64_t* last, const void* out,
                                  const float* lse, const void* g, void* at_q, void* at_k,
                                  void* at_v, Index batch, Index steps, Index seen, Index heads,
                                  Index kv_heads, Index columns, float scale, int threads) {
  const Band band{static_cast<const bf16*>(q), static_cast<const bf16*>(k),
                  static_cast<const bf16*>(v), first, last, batch, steps, seen, heads, kv_heads,
                  columns};
  const Layout layout(band, true, threads);
  const Index parts = std::max<Index>(1, kPieces / std::max<Index>(1, band.units()));
  const Index each = (band.blocks() + parts - 1) / parts * kBandRows;
  std::vector<Piece> pieces;
  for (Index unit = 0; unit < band.units(); ++unit)
    for (Index begin = 0; begin < band.rows(); begin += each)
      pieces.emplace_back(band, unit, begin, std::min(begin + each, band.rows()));
  for_each(Index(pieces.size()), threads, [&](Index i) {
    go_back(band, layout.of(pieces[i].unit, scale), static_cast<const bf16*>(out), lse,
            static_cast<const bf16*>(g), static_cast<bf16*>(at_q), pieces[i]);
  });
  const Index runs = (seen + kBandRows - 1) / kBandRows;
  for_each(band.units() * runs, threads, [&](Index i) {
    const Index from = i % runs * kBandRows, to = std::min(from + kBandRows, seen);
    add_up(band, pieces, i / runs, from, to, static_cast<bf16*>(at_k), static_cast<bf16*>(at_v));
  });
}
}
