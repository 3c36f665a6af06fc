// The product of two branches, one of them through GELU or SiLU.
#include <algorithm>
#include <cmath>

#include "griffin.h"
#include "select.h"
#include "x86.h"

namespace griffin {
namespace {
constexpr Index kBlock = 64;

struct GatingProblem {
  const void *gate, *x;
  void* out;  // in the gate's kind
  bool gate_wide, x_wide, gelu;
};

struct GatingGradient {
  const void* g;         // in the gate's kind
  void *at_gate, *at_x;  // each in its own kind
};

constexpr Index kPiece = 1 << 13;  // numbers of a task

#define GRIFFIN_LOOPS "gating.inl"
#include "each_isa.inl"
}  // namespace
}  // namespace griffin

using namespace griffin;

extern "C" {
// act(gate) * x, `count` numbers: the gate bf16 or fp32, x of its kind or fp32, out as the gate.
EXPORT void griffin_gate(const void* gate, int gate_wide, const void* x, int x_wide, void* out,
                         int gelu, Index count, int threads) {
  const GatingProblem p{gate, x, out, gate_wide != 0, x_wide != 0, gelu != 0};
  const auto run = GRIFFIN_PICK(gate);
  for_each((count + kPiece - 1) / kPiece, threads, [&](Index piece) {
    run(p, piece * kPiece, std::min(count, (piece + 1) * kPiece));
  });
}

// The gradients at gate and x, each of its kind, given g at out, of the gate's kind.
EXPORT void griffin_gate_backward(const void* gate, int gate_wide, const void* x, int x_wide,
                                  const void* g, void* at_gate, void* at_x, int gelu, Index count,
                                  int threads) {
  const GatingProblem p{gate, x, nullptr, gate_wide != 0, x_wide != 0, gelu != 0};
  const GatingGradient d{g, at_gate, at_x};
  const auto run = GRIFFIN_PICK(gate_backward);
  for_each((count + kPiece - 1) / kPiece, threads, [&](Index piece) {
    run(p, d, piece * kPiece, std::min(count, (piece + 1) * kPiece));
  });
}
}
