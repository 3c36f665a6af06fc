// The depthwise conv: channels side by side, every element computed alone. Included once per
// instruction set, behind elementary.inl.

template <class Real>
inline const Real* input_at(const ConvProblem& p, Index b, Index t) {
  if (t >= 0) return static_cast<const Real*>(p.x) + (b * p.steps + t) * p.width;
  return static_cast<const Real*>(p.past) + (b * (p.taps - 1) + p.taps - 1 + t) * p.width;
}

// How many earlier inputs the token at t meets: those of its own document.
inline Index reach_of(const ConvProblem& p, Index b, Index t) {
  const int64_t position = p.position[b * p.steps + t];
  return position < p.taps - 1 ? Index(position) : p.taps - 1;
}

template <class Real>
inline void conv_as(const ConvProblem& p, Index b, Index r0, Index r1) {
  const Real* w = static_cast<const Real*>(p.w) + r0;
  const Real* bias = static_cast<const Real*>(p.bias) + r0;
  const Index count = r1 - r0;
  float sum[kChannels];
  for (Index t = 0; t < p.steps; ++t) {
    for (Index c = 0; c < count; ++c) sum[c] = read(bias, c);
    for (Index s = 0; s <= reach_of(p, b, t); ++s) {
      const Real* x = input_at<Real>(p, b, t - s) + r0;
      const Real* tap = w + (p.taps - 1 - s) * p.width;
      GRIFFIN_INDEPENDENT
      for (Index c = 0; c < count; ++c) sum[c] += read(tap, c) * read(x, c);
    }
    Real* out = static_cast<Real*>(p.out) + (b * p.steps + t) * p.width + r0;
    for (Index c = 0; c < count; ++c) write(out, c, sum[c]);
  }
}

void conv(const ConvProblem& p, Index b, Index r0, Index r1) {
  p.wide ? conv_as<float>(p, b, r0, r1) : conv_as<bf16>(p, b, r0, r1);
}

template <class Real>
inline void conv_backward_as(const ConvProblem& p, const ConvGradient& d, Index b, Index r0,
                             Index r1) {
  const Real* w = static_cast<const Real*>(p.w) + r0;
  const Index count = r1 - r0, before = p.taps - 1;
  const Real* slopes = static_cast<const Real*>(d.g) + b * p.steps * p.width + r0;
  float sum[kChannels];
  for (Index t = -before; t < p.steps; ++t) {  // an input, and the later outputs that it reached
    for (Index c = 0; c < count; ++c) sum[c] = 0;
    const Real* x = input_at<Real>(p, b, t) + r0;
    for (Index s = t < 0 ? -t : 0; s <= before && t + s < p.steps; ++s) {
      if (reach_of(p, b, t + s) < s) continue;
      const Real* g = slopes + (t + s) * p.width;
      const Real* tap = w + (before - s) * p.width;
      float* at_tap = d.d_w + (b * p.taps + before - s) * p.width + r0;
      GRIFFIN_INDEPENDENT
      for (Index c = 0; c < count; ++c) {
        sum[c] += read(tap, c) * read(g, c);
        at_tap[c] += read(g, c) * read(x, c);
      }
    }
    Real* to = t >= 0 ? static_cast<Real*>(d.dx) + (b * p.steps + t) * p.width + r0
                      : static_cast<Real*>(d.d_past) + (b * before + before + t) * p.width + r0;
    for (Index c = 0; c < count; ++c) write(to, c, sum[c]);
  }
  float* at_bias = d.d_bias + b * p.width + r0;
  for (Index t = 0; t < p.steps; ++t) {
    const Real* g = slopes + t * p.width;
    GRIFFIN_INDEPENDENT
    for (Index c = 0; c < count; ++c) at_bias[c] += read(g, c);
  }
}

void conv_backward(const ConvProblem& p, const ConvGradient& d, Index b, Index r0, Index r1) {
  p.wide ? conv_backward_as<float>(p, d, b, r0, r1) : conv_backward_as<bf16>(p, d, b, r0, r1);
}
