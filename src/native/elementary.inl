// Exponential and sigmoid in fp32, reading and writing either kind of number. Included once per
// instruction set.

inline float bits_to_float(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

inline uint32_t float_to_bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

// e^z - 1 and e^z for z in [-87, 87]: z = n ln 2 + r, a polynomial of degree 7 in r, no
// cancellation near 0. Relative error of both below 2e-7.
inline void exponential(float z, float& less_one, float& whole) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer
  const float shifted = z * 1.44269504f + kMagic;
  const float n = shifted - kMagic;
  const float r = (z - n * 0.693145752f) - n * 1.42860677e-6f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r * r + r;
  const float scale = bits_to_float((float_to_bits(shifted) - float_to_bits(kMagic) + 127) << 23);
  less_one = scale * p + (scale - 1);
  whole = scale * p + scale;
}

inline float sigmoid(float v) {
  v = v < -87.0f ? -87.0f : v;  // comparisons with NaN are false: it stays
  v = v > 87.0f ? 87.0f : v;
  float unused, whole;
  exponential(-v, unused, whole);
  return 1.0f / (1.0f + whole);
}

inline float read(const float* p, Index at) { return p[at]; }
inline float read(const bf16* p, Index at) { return from_bf16(p[at]); }
inline void write(float* p, Index at, float v) { p[at] = v; }
inline void write(bf16* p, Index at, float v) { p[at] = to_bf16(v); }
