// Whatever the compiler makes of plain C++, for any machine.
#include <cmath>

#include "griffin.h"

namespace griffin {
namespace plain {
#include "linear.inl"
}
const Kernels* portable() {
  static const Kernels kernels{"portable",  plain::dense,    plain::wide, plain::int8,
                               plain::int4, plain::quantize, false,       nullptr,
                               nullptr,     nullptr};
  return &kernels;
}
}  // namespace griffin
