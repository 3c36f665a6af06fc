// Products in plain C++; the loops are written so that compilers vectorise them. Included inside a
// namespace of its own.

constexpr Index kLanes = 32;

inline float number(bf16 x) { return from_bf16(x); }
inline float number(float x) { return x; }

template <class Real>
inline void products(const Dense<Real>& p, const Block& b) {
  for (Index n = b.n0; n < b.n1; ++n) {
    const Real* w = p.w + n * p.k;
    for (Index m = b.m0; m < b.m1; ++m) {
      const Real* x = p.x + m * p.stride;
      float sums[kLanes] = {};
      Index k = 0;
      for (; k + kLanes <= p.k; k += kLanes)
        for (Index l = 0; l < kLanes; ++l) sums[l] += number(x[k + l]) * number(w[k + l]);
      for (Index l = 0; k < p.k; ++k, ++l) sums[l] += number(x[k]) * number(w[k]);
      for (Index half = kLanes / 2; half; half /= 2)
        for (Index l = 0; l < half; ++l) sums[l] += sums[l + half];
      b.out[(m - b.m0) * b.ld + (n - b.n0)] = sums[0];
    }
  }
}

void dense(const DenseProblem& p, const Block& b) { products(p, b); }
void wide(const WideProblem& p, const Block& b) { products(p, b); }

void int8(const Int8Problem& p, const Block& b) {
  for (Index n = b.n0; n < b.n1; ++n) {
    const int8_t* w = p.w + n * p.k;
    for (Index m = b.m0; m < b.m1; ++m) {
      const int8_t* q = p.q + m * p.kp;
      int32_t sum = 0;
      for (Index k = 0; k < p.k; ++k) sum += int32_t(q[k]) * int32_t(w[k]);
      b.out[(m - b.m0) * b.ld + (n - b.n0)] = float(sum) * (p.x_scale[m] * p.w_scale[n]);
    }
  }
}

void int4(const Int4Problem& p, const Block& b) {
  const Index groups = p.k / kGroup;
  for (Index n = b.n0; n < b.n1; n += kPanel) {
    const uint8_t* panel = p.w + n * (p.k / 2);
    const bf16* scales = p.scale + n * groups;
    for (Index m = b.m0; m < b.m1; ++m) {
      const int8_t* q = p.q + m * p.kp;
      const int32_t* offsets = p.q_sums + m * (p.kp / kGroup);
      float total[kPanel] = {};
      for (Index g = 0; g < groups; ++g) {
        const uint8_t* w = panel + g * (kPanel * kGroup / 2);
        int32_t sums[kPanel];
        for (Index i = 0; i < kPanel; ++i) sums[i] = -offsets[g];
        for (Index r = 0; r < 4; ++r)
          for (Index i = 0; i < kPanel; ++i)
            for (Index j = 0; j < 4; ++j) {
              const int32_t byte = w[r * 64 + 4 * i + j];
              sums[i] += (byte & 15) * q[g * kGroup + 4 * r + j];
              sums[i] += (byte >> 4) * q[g * kGroup + 16 + 4 * r + j];
            }
        for (Index i = 0; i < kPanel; ++i)
          total[i] = std::fma(float(sums[i]), from_bf16(scales[g * kPanel + i]), total[i]);
      }
      const Index end = b.n1 - n < kPanel ? b.n1 - n : kPanel;
      for (Index i = 0; i < end; ++i)
        b.out[(m - b.m0) * b.ld + (n - b.n0) + i] = total[i] * p.x_scale[m];
    }
  }
}

void quantize(const float* x, Index k, Index kp, int8_t* q, float* scale) {
  float largest = 0, poison = 0;
  for (Index i = 0; i < k; ++i) {
    const float size = std::fabs(x[i]);
    largest = size > largest ? size : largest;
    poison += x[i] * 0.0f;  // NaN where anything is not finite
  }
  const bool finite = poison == 0.0f;
  const float inverse = finite && largest > 0 ? 127.0f / largest : 0.0f;
  *scale = largest / 127.0f + poison;
  for (Index i = 0; i < k; ++i)
    q[i] = finite ? int8_t(int32_t(std::nearbyint(x[i] * inverse))) : int8_t(0);
  for (Index i = k; i < kp; ++i) q[i] = 0;
}
