// RMSNorm of a row: sums go in lanes, so a row has the same bits in any batch. Included once per
// instruction set, behind elementary.inl.

constexpr Index kLanes = 16;

template <class F>
inline float summed(Index width, const F& term) {
  float lanes[kLanes] = {};
  Index j = 0;
  for (; j + kLanes <= width; j += kLanes)
    for (Index l = 0; l < kLanes; ++l) lanes[l] += term(j + l);
  for (; j < width; ++j) lanes[0] += term(j);
  float sum = 0;
  for (float lane : lanes) sum += lane;
  return sum;
}

template <class Real, class Scale>
inline void norm_as(const NormProblem& p, Index row) {
  const Real* x = static_cast<const Real*>(p.x) + row * p.width;
  const Scale* scale = static_cast<const Scale*>(p.scale);
  Real* out = static_cast<Real*>(p.out) + row * p.width;
  const float squares = summed(p.width, [&](Index j) { return read(x, j) * read(x, j); });
  const float r = 1 / std::sqrt(squares / float(p.width) + p.eps);
  if (p.root) p.root[row] = r;
  if (p.offset) {
    GRIFFIN_INDEPENDENT
    for (Index j = 0; j < p.width; ++j) write(out, j, read(x, j) * r * (1 + read(scale, j)));
  } else {  // the quotient is rounded to x's kind before the product, as Llama does
    GRIFFIN_INDEPENDENT
    for (Index j = 0; j < p.width; ++j) {
      Real quotient;
      write(&quotient, 0, read(x, j) * r);
      write(out, j, read(&quotient, 0) * read(scale, j));
    }
  }
}

// At x: r (g f - x r^2 mean(g f x)), f the factor; at the scale, added to what is there: g x r.
template <class Real, class Scale>
inline void norm_backward_as(const NormProblem& p, const void* slope, Index row, void* at_x,
                             float* at_scale) {
  const Real* x = static_cast<const Real*>(p.x) + row * p.width;
  const Real* g = static_cast<const Real*>(slope) + row * p.width;
  const Scale* scale = static_cast<const Scale*>(p.scale);
  Real* dx = static_cast<Real*>(at_x) + row * p.width;
  const float r = p.root[row], one = p.offset ? 1.0f : 0.0f;
  const float along = summed(p.width, [&](Index j) {
    return read(g, j) * (one + read(scale, j)) * read(x, j);
  });
  const float back = along * r * r / float(p.width);
  GRIFFIN_INDEPENDENT
  for (Index j = 0; j < p.width; ++j) {
    const float value = read(x, j), here = read(g, j);
    write(dx, j, r * (here * (one + read(scale, j)) - value * back));
    at_scale[j] += here * value * r;
  }
}

void norm(const NormProblem& p, Index row) {
  if (p.wide) p.scale_wide ? norm_as<float, float>(p, row) : norm_as<float, bf16>(p, row);
  else p.scale_wide ? norm_as<bf16, float>(p, row) : norm_as<bf16, bf16>(p, row);
}

void norm_backward(const NormProblem& p, const void* g, Index row, void* dx, float* d_scale) {
  if (p.wide && p.scale_wide) norm_backward_as<float, float>(p, g, row, dx, d_scale);
  else if (p.wide) norm_backward_as<float, bf16>(p, g, row, dx, d_scale);
  else if (p.scale_wide) norm_backward_as<bf16, float>(p, g, row, dx, d_scale);
  else norm_backward_as<bf16, bf16>(p, g, row, dx, d_scale);
}
