// Cross entropy of rows of logits with a soft cap, and its gradient in the logits' place.
#include <cmath>
#include <vector>

#include "griffin.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
using LossRow = void (*)(float*, float*, Index, Index, float, float, bool, float*, uint8_t*);

#define GRIFFIN_LOOPS "loss.inl"
#include "each_isa.inl"

struct LossProblem {
  void* logits;  // (rows, columns), bf16 or fp32; the gradient takes their place
  bool wide, slope;
  Index columns;

  void row(LossRow use, Index at, Index target, float weight, float cap, float* loss,
           uint8_t* right) const {
    static thread_local std::vector<float> copy, powers;
    powers.resize(size_t(columns));
    if (wide) {
      use(static_cast<float*>(logits) + at * columns, powers.data(), columns, target, weight, cap,
          slope, loss, right);
      return;
    }
    copy.resize(size_t(columns));
    bf16* narrow = static_cast<bf16*>(logits) + at * columns;
    for (Index j = 0; j < columns; ++j) copy[size_t(j)] = from_bf16(narrow[j]);
    use(copy.data(), powers.data(), columns, target, weight, cap, slope, loss, right);
    if (slope)
      for (Index j = 0; j < columns; ++j) narrow[j] = to_bf16(copy[size_t(j)]);
  }
};
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
// Of logits (rows, columns) before the cap (0: none), bf16 or fp32: loss (rows) and whether the
// target (rows) is a largest one; slope: weight (rows) times the loss's gradient replaces them.
EXPORT void griffin_loss(void* logits, int wide, const int64_t* targets, const float* weight,
                         float* loss, uint8_t* right, Index rows, Index columns, float cap,
                         int slope, int threads) {
  const LossProblem p{logits, wide != 0, slope != 0, columns};
  const LossRow use = GRIFFIN_PICK(loss_row);
  for_each(rows, threads, [&](Index r) {
    p.row(use, r, targets[r], weight[r], cap, loss + r, right + r);
  });
}
}
