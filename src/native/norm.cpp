// RMSNorm and its gradient.
#include <algorithm>
#include <cmath>

#include "griffin.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
struct NormProblem {
  const void *x, *scale;  // (rows, width), (width)
  void* out;
  float* root;  // (rows): 1 / root of the mean square, written forwards; null: not wanted
  bool wide, scale_wide, offset;
  Index width;
  float eps;
};

#define GRIFFIN_LOOPS "norm.inl"
#include "each_isa.inl"

constexpr Index kShort = 1 << 13;  // numbers that are not worth waking other threads for
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
// x and out (rows, width), bf16 or fp32; scale (width), either; offset: the factor is 1 + scale.
EXPORT void griffin_norm(const void* x, int wide, const void* scale, int scale_wide, void* out,
                         float* root, Index rows, Index width, float eps, int offset,
                         int threads) {
  const NormProblem p{x, scale, out, root, wide != 0, scale_wide != 0, offset != 0, width, eps};
  const auto run = GRIFFIN_PICK(norm);
  const Index piece = std::max<Index>(1, kShort / std::max<Index>(1, width));
  for_each((rows + piece - 1) / piece, threads, [&](Index task) {
    for (Index r = task * piece; r < std::min(rows, (task + 1) * piece); ++r) run(p, r);
  });
}

// d_scale (parts, width), zeros: part i gets the sum over rows [i, i + 1) * ceil(rows / parts).
EXPORT void griffin_norm_backward(const void* x, int wide, const void* scale, int scale_wide,
                                  const float* root, const void* g, void* dx, float* d_scale,
                                  Index rows, Index width, Index parts, int offset, int threads) {
  const NormProblem p{x, scale, nullptr, const_cast<float*>(root), wide != 0, scale_wide != 0,
                      offset != 0, width, 0.0f};
  const auto run = GRIFFIN_PICK(norm_backward);
  const Index piece = (rows + parts - 1) / parts;
  for_each(parts, threads, [&](Index part) {
    for (Index r = part * piece; r < std::min(rows, (part + 1) * piece); ++r)
      run(p, g, r, dx, d_scale + part * width);
  });
}
}
