// Channels side by side, time one step after another: every element is computed alone, so neither
// the batch nor where a text is cut changes a bit. Included once per instruction set.

struct Gates {
  float r, i, a, m, z;  // m = sqrt(z), z = 1 - a^2
};

inline Gates gates(float r_logit, float i_logit, float rate) {
  Gates g;
  g.r = sigmoid(r_logit);
  g.i = sigmoid(i_logit);
  float log_a = -rate * g.r;
  log_a = log_a < -43.0f ? -43.0f : log_a;  // a^2 is 0 in fp32 from here on
  float less_one;
  exponential(log_a, less_one, g.a);
  g.z = -less_one * (2.0f + less_one);
  g.m = std::sqrt(g.z);
  return g;
}

void scan(const ScanProblem& p, Index b, Index r0, Index r1) {
  const Index base = b * p.steps * p.width;
  float h[kChannels];
  const Index count = r1 - r0;
  for (Index c = 0; c < count; ++c) h[c] = p.h0[b * p.width + r0 + c];
  for (Index s = 0; s < p.steps; ++s) {
    const Index at = base + (p.reverse ? p.steps - 1 - s : s) * p.width + r0;
    const float *x = p.x + at, *a = p.a + at;
    float* out = p.hs + at;
    GRIFFIN_INDEPENDENT
    for (Index c = 0; c < count; ++c) {
      const float grown = a[c] * h[c] + x[c];
      h[c] = a[c] == 0.0f ? x[c] : grown;
      out[c] = h[c];
    }
  }
}

// Back through time: what is carried is a_t's share of the whole gradient at h_t.
void scan_backward(const ScanProblem& p, const ScanGradient& d, Index b, Index r0, Index r1) {
  const Index base = b * p.steps * p.width, count = r1 - r0;
  float carried[kChannels];
  for (Index c = 0; c < count; ++c) carried[c] = 0.0f;
  for (Index t = p.steps - 1; t >= 0; --t) {
    const Index at = base + t * p.width + r0;
    const float *a = p.a + at, *g = d.g + at;
    const float* before = t ? p.hs + at - p.width : p.h0 + b * p.width + r0;
    float *dx = d.dx + at, *da = d.da + at;
    GRIFFIN_INDEPENDENT
    for (Index c = 0; c < count; ++c) {
      const float whole = g[c] + carried[c], slope = whole * before[c], passed = whole * a[c];
      dx[c] = whole;
      da[c] = a[c] == 0.0f ? 0.0f : slope;
      carried[c] = a[c] == 0.0f ? 0.0f : passed;
    }
  }
  for (Index c = 0; c < count; ++c) d.d_h0[b * p.width + r0 + c] = carried[c];
}

template <class Real>
inline void rg_lru_as(const RgLruProblem& p, Index b, Index r0, Index r1) {
  const Index base = b * p.steps * p.width, count = r1 - r0;
  float h[kChannels];
  for (Index c = 0; c < count; ++c) h[c] = p.h0[b * p.width + r0 + c];
  const float* rate = p.rate + r0;
  for (Index t = 0; t < p.steps; ++t) {
    const Index at = base + t * p.width + r0;
    const Real* x = static_cast<const Real*>(p.x) + at;
    const Real* rs = static_cast<const Real*>(p.r) + at;
    const Real* is = static_cast<const Real*>(p.i) + at;
    float* out = p.hs + at;
    const bool start = p.starts[b * p.steps + t];
    GRIFFIN_INDEPENDENT
    for (Index c = 0; c < count; ++c) {
      const Gates g = gates(read(rs, c), read(is, c), rate[c]);
      const float drive = g.i * read(x, c);
      h[c] = start ? drive : g.a * h[c] + g.m * drive;
      out[c] = h[c];
    }
  }
}

void rg_lru(const RgLruProblem& p, Index b, Index r0, Index r1) {
  p.wide ? rg_lru_as<float>(p, b, r0, r1) : rg_lru_as<bf16>(p, b, r0, r1);
}

template <class Real>
inline void rg_lru_backward_as(const RgLruProblem& p, const RgLruGradient& d, Index b, Index r0,
                               Index r1) {
  const Index base = b * p.steps * p.width, count = r1 - r0;
  float carried[kChannels] = {}, d_rate[kChannels] = {};
  const float* rate = p.rate + r0;
  for (Index t = p.steps - 1; t >= 0; --t) {
    const Index at = base + t * p.width + r0;
    const Real* x = static_cast<const Real*>(p.x) + at;
    const Real* rs = static_cast<const Real*>(p.r) + at;
    const Real* is = static_cast<const Real*>(p.i) + at;
    const float* before = t ? p.hs + at - p.width : p.h0 + b * p.width + r0;
    const float* g = d.g + at;
    Real* dx = static_cast<Real*>(d.dx) + at;
    Real* dr = static_cast<Real*>(d.dr) + at;
    Real* di = static_cast<Real*>(d.di) + at;
    const bool start = p.starts[b * p.steps + t];
    GRIFFIN_INDEPENDENT
    for (Index c = 0; c < count; ++c) {
      const Gates k = gates(read(rs, c), read(is, c), rate[c]);
      const float value = read(x, c), whole = g[c] + carried[c];
      const float m = start ? 1.0f : k.m;
      const float scaled = whole * m;
      write(dx, c, scaled * k.i);
      write(di, c, scaled * value * k.i * (1 - k.i));
      // d m / d log a = -a^2 / sqrt(z), the slope of the root bounded as in BoundedSqrt
      const float four = 4 * k.z, bounded = four > 1e-6f ? four : 1e-6f;
      const float d_m = -2 * k.a * k.a / std::sqrt(bounded);
      const float d_log = whole * (k.a * before[c] + d_m * k.i * value);
      const float d_rate_here = start ? 0.0f : -d_log * k.r;
      d_rate[c] += d_rate_here;
      write(dr, c, d_rate_here * rate[c] * (1 - k.r));
      carried[c] = start ? 0.0f : whole * k.a;
    }
  }
  for (Index c = 0; c < count; ++c) {
    d.d_rate[b * p.width + r0 + c] = d_rate[c];
    d.d_h0[b * p.width + r0 + c] = carried[c];
  }
}

void rg_lru_backward(const RgLruProblem& p, const RgLruGradient& d, Index b, Index r0, Index r1) {
  p.wide ? rg_lru_backward_as<float>(p, d, b, r0, r1) : rg_lru_backward_as<bf16>(p, d, b, r0, r1);
}
