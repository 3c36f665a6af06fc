// Channels side by side, their states one after another, time step after time step: a channel's
// numbers don't depend on the batch, on the threads, or on where a text is cut. Included once per
// instruction set.

// A run's channels, [begin, begin + count), in whole groups of lanes; what is behind them is 0.
struct Run {
  Index b, begin, count, lanes;
  Run(const SelectiveProblem& p, Index b_, Index part) : b(b_), begin(part * kRun) {
    count = p.width - begin < kRun ? p.width - begin : kRun;
    lanes = (count + kLanes - 1) / kLanes * kLanes;
  }
  // row t of a tensor (B, T, E)
  Index at(const SelectiveProblem& p, Index t) const {
    return (b * p.steps + t) * p.width + begin;
  }
  void load(const float* from, float* to) const {
    for (Index c = 0; c < count; ++c) to[c] = from[c];
    for (Index c = count; c < lanes; ++c) to[c] = 0;
  }
  // (E, N) of the run's channels from and to (N, lanes)
  void turn_in(const SelectiveProblem& p, const float* from, float* to) const {
    for (Index n = 0; n < p.states; ++n) {
      for (Index c = 0; c < count; ++c) to[n * kRun + c] = from[(begin + c) * p.states + n];
      for (Index c = count; c < lanes; ++c) to[n * kRun + c] = 0;
    }
  }
  void turn_out(const SelectiveProblem& p, const float* from, float* to) const {
    for (Index c = 0; c < count; ++c)
      for (Index n = 0; n < p.states; ++n) to[(begin + c) * p.states + n] = from[n * kRun + c];
  }
};

// exp(delta A): e^-87 stands for everything below it; NaN stays NaN.
inline float decay_of(float delta, float rate) {
  float z = delta * rate;
  z = z < -87.0f ? -87.0f : z;
  z = z > 87.0f ? 87.0f : z;
  float less_one, whole;
  exponential(z, less_one, whole);
  return whole;
}

// One step of one state of all lanes: h in place.
inline void step(const float* delta, const float* drive, const float* A, float in, bool start,
                 Index lanes, float* h, float* decay) {
  GRIFFIN_INDEPENDENT
  for (Index c = 0; c < lanes; ++c) {
    const float a = decay_of(delta[c], A[c]);
    const float grown = a * h[c] + drive[c] * in;
    h[c] = start ? drive[c] * in : grown;
    decay[c] = a;
  }
}

void selective_scan(const SelectiveProblem& p, Index b, Index part) {
  const Run run(p, b, part);
  const Index lanes = run.lanes, all = p.width * p.states;
  alignas(64) float h[kStates * kRun], A[kStates * kRun], x[kRun], delta[kRun], drive[kRun];
  alignas(64) float y[kRun], unused[kRun];
  run.turn_in(p, p.A, A);
  run.turn_in(p, p.h0 + b * all, h);
  for (Index t = 0; t < p.steps; ++t) {
    if (p.kept && t % kChunk == 0) {
      run.turn_out(p, h, p.kept + (b * p.chunks() + t / kChunk) * all);
    }
    run.load(p.x + run.at(p, t), x);
    run.load(p.delta + run.at(p, t), delta);
    for (Index c = 0; c < lanes; ++c) {
      drive[c] = delta[c] * x[c];
      y[c] = 0;
    }
    const float* B = p.B + (b * p.steps + t) * p.states;
    const float* C = p.C + (b * p.steps + t) * p.states;
    const bool start = p.starts[b * p.steps + t];
    for (Index n = 0; n < p.states; ++n) {
      float* hn = h + n * kRun;
      step(delta, drive, A + n * kRun, B[n], start, lanes, hn, unused);
      GRIFFIN_INDEPENDENT
      for (Index c = 0; c < lanes; ++c) y[c] += C[n] * hn[c];
    }
    float* out = p.y + run.at(p, t);
    for (Index c = 0; c < run.count; ++c) out[c] = y[c];
  }
  run.turn_out(p, h, p.last + b * all);
}

// The sum of kLanes numbers, halves onto halves.
inline float total(float* sums) {
  for (Index half = kLanes / 2; half; half /= 2) {
    for (Index j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return sums[0];
}

// With G_t the whole gradient at h_t and L_t = G_t h_{t-1} a_t; see ops/selective_scan/gradient.py.
void selective_scan_backward(const SelectiveProblem& p, const SelectiveGradient& d, Index b,
                             Index part) {
  const Run run(p, b, part);
  const Index lanes = run.lanes, all = p.width * p.states, row = p.states * kRun;
  // states before and after each token of a chunk, and decays: of this thread, used again
  static thread_local std::vector<float> kept;
  kept.resize((2 * kChunk + 1) * row);
  float *states = kept.data(), *decays = states + (kChunk + 1) * row;
  alignas(64) float A[kStates * kRun], carried[kStates * kRun], dA[kStates * kRun];
  alignas(64) float x[kRun], delta[kRun], drive[kRun], g[kRun];
  alignas(64) float GB[kRun], LA[kRun];
  run.turn_in(p, p.A, A);
  run.turn_in(p, d.g_last + b * all, carried);
  for (Index k = 0; k < row; ++k) dA[k] = 0;
  for (Index chunk = p.chunks() - 1; chunk >= 0; --chunk) {
    const Index t0 = chunk * kChunk, t1 = t0 + kChunk < p.steps ? t0 + kChunk : p.steps;
    run.turn_in(p, p.kept + (b * p.chunks() + chunk) * all, states);
    for (Index t = t0; t < t1; ++t) {
      run.load(p.x + run.at(p, t), x);
      run.load(p.delta + run.at(p, t), delta);
      for (Index c = 0; c < lanes; ++c) drive[c] = delta[c] * x[c];
      const float* B = p.B + (b * p.steps + t) * p.states;
      const bool start = p.starts[b * p.steps + t];
      float *before = states + (t - t0) * row, *after = before + row;
      for (Index n = 0; n < p.states; ++n) {
        for (Index c = 0; c < lanes; ++c) after[n * kRun + c] = before[n * kRun + c];
        step(delta, drive, A + n * kRun, B[n], start, lanes, after + n * kRun,
             decays + (t - t0) * row + n * kRun);
      }
    }
    for (Index t = t1 - 1; t >= t0; --t) {
      run.load(p.x + run.at(p, t), x);
      run.load(p.delta + run.at(p, t), delta);
      run.load(d.g + run.at(p, t), g);
      for (Index c = 0; c < lanes; ++c) {
        drive[c] = delta[c] * x[c];
        GB[c] = LA[c] = 0;
      }
      const float* B = p.B + (b * p.steps + t) * p.states;
      const float* C = p.C + (b * p.steps + t) * p.states;
      const bool start = p.starts[b * p.steps + t];
      const Index sums = ((part * p.batch + b) * p.steps + t) * p.states;
      for (Index n = 0; n < p.states; ++n) {
        const Index at = n * kRun;
        const float *before = states + (t - t0) * row + at, *h = before + row;
        const float *a = decays + (t - t0) * row + at, *An = A + at;
        float *passed = carried + at, *dAn = dA + at;
        alignas(64) float dB[kLanes] = {}, dC[kLanes] = {};
        for (Index c0 = 0; c0 < lanes; c0 += kLanes) {
          GRIFFIN_INDEPENDENT
          for (Index j = 0; j < kLanes; ++j) {
            const Index c = c0 + j;
            const float G = passed[c] + g[c] * C[n];
            const float onward = G * a[c], slope = onward * before[c];
            const float L = start ? 0.0f : slope;
            GB[c] += G * B[n];
            LA[c] += L * An[c];
            dAn[c] += L * delta[c];
            dB[j] += G * drive[c];
            dC[j] += h[c] * g[c];
            passed[c] = start ? 0.0f : onward;
          }
        }
        d.dB[sums + n] = total(dB);
        d.dC[sums + n] = total(dC);
      }
      float *dx = d.dx + run.at(p, t), *d_delta = d.d_delta + run.at(p, t);
      for (Index c = 0; c < run.count; ++c) {
        dx[c] = delta[c] * GB[c];
        d_delta[c] = x[c] * GB[c] + LA[c];
      }
    }
  }
  run.turn_out(p, carried, d.d_h0 + b * all);
  run.turn_out(p, dA, d.dA + b * all);
}
