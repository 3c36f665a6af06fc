// One row of logits: what a token's cross entropy and its gradient need of them, the row staying in
// the second-level cache. Included once per instruction set, behind elementary.inl.

constexpr Index kLanes = 16;

// e^z, 0 where fp32 has no normal number for it: products with subnormal ones are slow.
inline float weight_of(float z) {
  const float bounded = z < -87.0f ? -87.0f : z;  // comparisons with NaN are false: it stays
  float unused, whole;
  exponential(bounded, unused, whole);
  return z < -87.0f ? 0.0f : whole;
}

inline float hyperbolic_tangent(float u) {
  u = u < -43.0f ? -43.0f : u;
  u = u > 43.0f ? 43.0f : u;
  float less_one, whole;
  exponential(2 * u, less_one, whole);
  return less_one / (whole + 1);
}

// Calls body(j, lane) for every column.
template <class F>
inline void for_columns(Index columns, const F& body) {
  Index j = 0;
  for (; j + kLanes <= columns; j += kLanes)
    for (Index l = 0; l < kLanes; ++l) body(j + l, l);
  for (; j < columns; ++j) body(j, 0);
}

// row: logits before the cap; after it, the gradient of weight * loss where `slope` is set.
// powers: room for as many numbers.
void loss_row(float* row, float* powers, Index columns, Index target, float weight, float cap,
              bool slope, float* loss, uint8_t* right) {
  const float inverse = cap ? 1 / cap : 1.0f, height = cap ? cap : 1.0f;
  float most[kLanes], sums[kLanes] = {};
  for (float& m : most) m = -3e38f;
  if (cap)
    for_columns(columns, [&](Index j, Index) { row[j] = hyperbolic_tangent(row[j] * inverse); });
  for_columns(columns, [&](Index j, Index l) { most[l] = row[j] > most[l] ? row[j] : most[l]; });
  float top = most[0];
  for (Index l = 1; l < kLanes; ++l) top = most[l] > top ? most[l] : top;
  const float wanted = row[target];
  for_columns(columns, [&](Index j, Index l) {
    powers[j] = weight_of(height * (row[j] - top));
    sums[l] += powers[j];
  });
  float sum = 0;
  for (Index l = 0; l < kLanes; ++l) sum += sums[l];
  *loss = std::log(sum) + height * (top - wanted);
  *right = wanted >= top;
  if (!slope) return;
  const float share = weight / sum;
  const float bend = cap ? 1.0f : 0.0f;  // the cap's slope is 1 - tanh^2
  GRIFFIN_INDEPENDENT
  for (Index j = 0; j < columns; ++j) row[j] = share * powers[j] * (1 - bend * row[j] * row[j]);
  row[target] -= weight * (1 - bend * wanted * wanted);
}
