// Softmax over a band of columns, and its gradient: the part of windowed attention in training that
// isn't a matrix product.
#include <algorithm>
#include <cmath>

#include "griffin.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
#define GRIFFIN_LOOPS "band.inl"
#include "each_isa.inl"

constexpr Index kRun = 32;  // rows of a task

template <class F>
void for_rows(Index rows, int threads, const F& body) {
  for_each((rows + kRun - 1) / kRun, threads, [&](Index task) {
    for (Index r = task * kRun; r < std::min(rows, (task + 1) * kRun); ++r) body(r);
  });
}
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
EXPORT void griffin_band_softmax(float* scores, const int32_t* first, const int32_t* end,
                                 float* lse, Index rows, Index columns, Index shared, float scale,
                                 int threads) {
  const auto run = GRIFFIN_PICK(softmax_row);
  for_rows(rows, threads, [&](Index r) {
    run(scores + r * columns, first[r / shared], end[r / shared], columns, scale, lse + r);
  });
}

EXPORT void griffin_band_gradient(float* scores, float* slope, const int32_t* first,
                                  const int32_t* end, const float* lse, Index rows, Index columns,
                                  Index shared, float scale, int threads) {
  const auto run = GRIFFIN_PICK(gradient_row);
  for_rows(rows, threads, [&](Index r) {
    run(scores + r * columns, slope + r * columns, first[r / shared], end[r / shared],
                 columns, lse[r], scale);
  });
}
}
