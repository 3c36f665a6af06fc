// Number by number, between the larger parts of a half. Included once per instruction set.

// out = x + out, numbers [begin, end).
template <class Real>
inline void add_as(const void* x, void* out, Index begin, Index end) {
  const Real* from = static_cast<const Real*>(x);
  Real* to = static_cast<Real*>(out);
  GRIFFIN_INDEPENDENT
  for (Index i = begin; i < end; ++i) write(to, i, read(from, i) + read(to, i));
}

void add(const void* x, void* out, bool wide, Index begin, Index end) {
  if (wide) add_as<float>(x, out, begin, end);
  else add_as<bf16>(x, out, begin, end);
}
