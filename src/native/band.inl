// Rows of scores of which a run of columns is visible. Sums go in lanes, so that compilers may use
// vectors without reordering anything else. Included once per instruction set.

constexpr Index kLanes = 16;

inline float exponential_of(float z) {
  z = z < -87.0f ? -87.0f : z;  // comparisons with NaN are false: it stays
  float unused, whole;
  exponential(z, unused, whole);
  return whole;
}

inline float sum_of(const float* lanes) {
  float sum = 0;
  for (Index l = 0; l < kLanes; ++l) sum += lanes[l];
  return sum;
}

inline void clear(float* row, Index from, Index to) {
  if (from < to) std::memset(row + from, 0, size_t(to - from) * sizeof(float));
}

void softmax_row(float* row, Index first, Index end, Index columns, float scale, float* lse) {
  float most[kLanes], sums[kLanes] = {};
  for (float& m : most) m = -3e38f;
  Index j = first;
  for (; j + kLanes <= end; j += kLanes)
    for (Index l = 0; l < kLanes; ++l) most[l] = row[j + l] > most[l] ? row[j + l] : most[l];
  float top = -3e38f;
  for (; j < end; ++j) top = row[j] > top ? row[j] : top;
  for (Index l = 0; l < kLanes; ++l) top = most[l] > top ? most[l] : top;
  const float shift = scale * top;
  for (j = first; j + kLanes <= end; j += kLanes)
    for (Index l = 0; l < kLanes; ++l) {
      row[j + l] = exponential_of(scale * row[j + l] - shift);
      sums[l] += row[j + l];
    }
  float sum = 0;
  for (; j < end; ++j) sum += row[j] = exponential_of(scale * row[j] - shift);
  sum += sum_of(sums);
  const float factor = 1 / sum;
  GRIFFIN_INDEPENDENT
  for (j = first; j < end; ++j) row[j] *= factor;
  clear(row, 0, first), clear(row, end, columns);
  *lse = shift + std::log(sum);
}

// p = softmax(scale s); at s: scale p (g - sum p g), g the gradient at p.
void gradient_row(float* row, float* slope, Index first, Index end, Index columns, float lse,
                  float scale) {
  float sums[kLanes] = {}, sum = 0;
  Index j = first;
  for (; j + kLanes <= end; j += kLanes)
    for (Index l = 0; l < kLanes; ++l) {
      row[j + l] = exponential_of(scale * row[j + l] - lse);
      sums[l] += row[j + l] * slope[j + l];
    }
  for (; j < end; ++j) sum += (row[j] = exponential_of(scale * row[j] - lse)) * slope[j];
  sum += sum_of(sums);
  GRIFFIN_INDEPENDENT
  for (j = first; j < end; ++j) slope[j] = scale * row[j] * (slope[j] - sum);
  clear(row, 0, first), clear(row, end, columns);
  clear(slope, 0, first), clear(slope, end, columns);
}
