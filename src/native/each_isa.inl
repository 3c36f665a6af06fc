// GRIFFIN_LOOPS, a file of plain loops, once for each instruction set that may run them: in the
// namespaces on_any, on_avx2 and on_avx512. GRIFFIN_PICK(f) is then the one in use.
namespace on_any {
#include "elementary.inl"
#include GRIFFIN_LOOPS
}  // namespace on_any
#if GRIFFIN_X86
GRIFFIN_BEGIN("avx2,fma")
namespace on_avx2 {
#include "elementary.inl"
#include GRIFFIN_LOOPS
}  // namespace on_avx2
GRIFFIN_END
GRIFFIN_BEGIN(GRIFFIN_AVX512 ",prefer-vector-width=512")
namespace on_avx512 {
#include "elementary.inl"
#include GRIFFIN_LOOPS
}  // namespace on_avx512
GRIFFIN_END
#endif
