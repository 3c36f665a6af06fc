// A few queries over a ring of earlier keys and values. Included once per instruction set; the
// order of additions depends on the head's width and on the keys seen, on nothing else.

constexpr Index kLane = 32;

template <class Real>
inline float dot(const float* q, const Real* k, Index width) {
  float sums[kLane] = {};
  Index d = 0;
  for (; d + kLane <= width; d += kLane)
    for (Index l = 0; l < kLane; ++l) sums[l] += q[d + l] * read(k, d + l);
  for (Index l = 0; d < width; ++d, ++l) sums[l] += q[d] * read(k, d);
  for (Index half = kLane / 2; half; half /= 2)
    for (Index l = 0; l < half; ++l) sums[l] += sums[l + half];
  return sums[0];
}

template <class Real>
inline void attend_as(const AttentionProblem& p, Index b, Index t, Index h0, Index h1,
                      float* scores, float* wide) {
  const Index width = p.width, now = p.read[b] + t, first = now - p.seen[b * p.steps + t];
  const Index count = now - first + 1, shared = p.heads / p.kv_heads, kv = h0 / shared;
  const Real* q = static_cast<const Real*>(p.q) + ((b * p.steps + t) * p.heads) * width;
  float* sums = wide + (h1 - h0) * width;
  const float scale = 1.0f / std::sqrt(float(width));
  for (Index h = h0; h < h1; ++h)
    for (Index d = 0; d < width; ++d) {
      wide[(h - h0) * width + d] = read(q, h * width + d) * scale;
      sums[(h - h0) * width + d] = 0;
    }
  // a key's number -> its row: older ones in the ring, those of this call in k and v
  const auto row = [&](const void* ring, const void* fresh, Index number) {
    const Index before = p.read[b];
    const Index at = number < before ? (b * p.slots + number % p.slots)
                                     : (b * p.steps + number - before);
    return static_cast<const Real*>(number < before ? ring : fresh) +
           (at * p.kv_heads + kv) * width;
  };
  for (Index j = 0; j < count; ++j) {
    const Real* k = row(p.ring_k, p.k, first + j);
    for (Index h = 0; h < h1 - h0; ++h) scores[h * p.room + j] = dot(wide + h * width, k, width);
  }
  for (Index h = 0; h < h1 - h0; ++h) {
    float* s = scores + h * p.room;
    float largest = s[0], total = 0;
    for (Index j = 1; j < count; ++j) largest = s[j] > largest ? s[j] : largest;
    for (Index j = 0; j < count; ++j) {
      float unused, whole, z = s[j] - largest;
      z = z < -87.0f ? -87.0f : z;
      exponential(z, unused, whole);
      s[j] = whole;
    }
    for (Index j = 0; j < count; ++j) total += s[j];
    for (Index j = 0; j < count; ++j) s[j] /= total;
  }
  for (Index j = 0; j < count; ++j) {
    const Real* v = row(p.ring_v, p.v, first + j);
    for (Index h = 0; h < h1 - h0; ++h) {
      const float share = scores[h * p.room + j];
      float* sum = sums + h * width;
      GRIFFIN_INDEPENDENT
      for (Index d = 0; d < width; ++d) sum[d] += share * read(v, d);
    }
  }
  Real* out = static_cast<Real*>(p.out) + ((b * p.steps + t) * p.heads) * width;
  for (Index h = h0; h < h1; ++h)
    for (Index d = 0; d < width; ++d) write(out, h * width + d, sums[(h - h0) * width + d]);
}

void attend(const AttentionProblem& p, Index b, Index t, Index h0, Index h1, float* scores,
            float* wide) {
  p.fp32 ? attend_as<float>(p, b, t, h0, h1, scores, wide)
         : attend_as<bf16>(p, b, t, h0, h1, scores, wide);
}
