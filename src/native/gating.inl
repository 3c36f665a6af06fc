// act(gate) * x and its gradients, in blocks of one size, the last one filled up: an element's bits
// don't depend on where it stands. Included once per instruction set, behind elementary.inl.

template <class Gate, class X, bool Gelu>
inline void gate_block(const Gate* gate, const X* x, Gate* out) {
  GRIFFIN_INDEPENDENT
  for (Index i = 0; i < kBlock; ++i) {
    const float g = read(gate, i);
    // x (1 + tanh(u)) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3)
    const float inner = Gelu ? 1.595769122f * (g + 0.044715f * g * g * g) : g;
    const float half = inner < -87.0f ? 0.0f : sigmoid(inner);  // no least number times a huge one
    write(out, i, read(x, i) * (g * half));
  }
}

// at_gate, at_x: the gradients, given `slope` at the product.
template <class Gate, class X, bool Gelu>
inline void slope_block(const Gate* gate, const X* x, const Gate* slope, Gate* at_gate, X* at_x) {
  GRIFFIN_INDEPENDENT
  for (Index i = 0; i < kBlock; ++i) {
    const float g = read(gate, i), s = read(slope, i), value = read(x, i);
    const float inner = Gelu ? 1.595769122f * (g + 0.044715f * g * g * g) : g;
    const float steep = Gelu ? 1.595769122f * (1 + 3 * 0.044715f * g * g) : 1.0f;
    const float half = inner < -87.0f ? 0.0f : sigmoid(inner);
    float bend = g * half * (1 - half) * steep;
    bend = inner < -60.0f ? 0.0f : bend;  // far out it may be 0 times infinity
    bend = inner > 60.0f ? 0.0f : bend;
    write(at_x, i, s * (g * half));
    write(at_gate, i, s * value * (half + bend));
  }
}

// A run of fewer numbers than a block, filled up with zeros; and back.
template <class Real>
struct Filled {
  Real numbers[kBlock] = {};
  Filled() = default;
  Filled(const Real* from, Index count) { std::memcpy(numbers, from, size_t(count) * sizeof(Real)); }
  void copy(Real* to, Index count) const { std::memcpy(to, numbers, size_t(count) * sizeof(Real)); }
};

template <class Gate, class X, bool Gelu>
inline void gate_as(const GatingProblem& p, Index begin, Index end) {
  const Gate* gate = static_cast<const Gate*>(p.gate);
  const X* x = static_cast<const X*>(p.x);
  Gate* out = static_cast<Gate*>(p.out);
  Index at = begin;
  for (; at + kBlock <= end; at += kBlock) gate_block<Gate, X, Gelu>(gate + at, x + at, out + at);
  if (at == end) return;
  const Filled<Gate> last(gate + at, end - at);
  const Filled<X> last_x(x + at, end - at);
  Filled<Gate> result;
  gate_block<Gate, X, Gelu>(last.numbers, last_x.numbers, result.numbers);
  result.copy(out + at, end - at);
}

template <class Gate, class X, bool Gelu>
inline void slope_as(const GatingProblem& p, const GatingGradient& d, Index begin, Index end) {
  const Gate* gate = static_cast<const Gate*>(p.gate);
  const X* x = static_cast<const X*>(p.x);
  const Gate* slope = static_cast<const Gate*>(d.g);
  Gate* at_gate = static_cast<Gate*>(d.at_gate);
  X* at_x = static_cast<X*>(d.at_x);
  Index at = begin;
  for (; at + kBlock <= end; at += kBlock)
    slope_block<Gate, X, Gelu>(gate + at, x + at, slope + at, at_gate + at, at_x + at);
  if (at == end) return;
  const Filled<Gate> last(gate + at, end - at), last_slope(slope + at, end - at);
  const Filled<X> last_x(x + at, end - at);
  Filled<Gate> result;
  Filled<X> result_x;
  slope_block<Gate, X, Gelu>(last.numbers, last_x.numbers, last_slope.numbers, result.numbers,
                             result_x.numbers);
  result.copy(at_gate + at, end - at), result_x.copy(at_x + at, end - at);
}

template <class Gate, class X>
inline void gate_of(const GatingProblem& p, Index begin, Index end) {
  p.gelu ? gate_as<Gate, X, true>(p, begin, end) : gate_as<Gate, X, false>(p, begin, end);
}

template <class Gate, class X>
inline void slope_of(const GatingProblem& p, const GatingGradient& d, Index begin, Index end) {
  p.gelu ? slope_as<Gate, X, true>(p, d, begin, end) : slope_as<Gate, X, false>(p, d, begin, end);
}

void gate(const GatingProblem& p, Index begin, Index end) {
  if (p.gate_wide) gate_of<float, float>(p, begin, end);
  else if (p.x_wide) gate_of<bf16, float>(p, begin, end);
  else gate_of<bf16, bf16>(p, begin, end);
}

void gate_backward(const GatingProblem& p, const GatingGradient& d, Index begin, Index end) {
  if (p.gate_wide) slope_of<float, float>(p, d, begin, end);
  else if (p.x_wide) slope_of<bf16, float>(p, d, begin, end);
  else slope_of<bf16, bf16>(p, d, begin, end);
}
