// Chooses the instruction set once, at the first use; tests choose another by name.
#include "select.h"

#include <atomic>
#include <initializer_list>

namespace griffin {
namespace {
std::atomic<const Kernels*> chosen{nullptr};

const Kernels* named(const char* name) {
  for (const Kernels* kernels : {amx(), avx512(), avx2(), portable()})
    if (kernels && (!name[0] || !std::strcmp(kernels->name, name))) return kernels;
  return nullptr;
}
}  // namespace

const Kernels& selected() {
  const Kernels* kernels = chosen.load(std::memory_order_relaxed);
  if (!kernels) chosen.store(kernels = named(""), std::memory_order_relaxed);
  return *kernels;
}
}  // namespace griffin

extern "C" {
// The name of the instruction set in use.
EXPORT const char* griffin_isa() { return griffin::selected().name; }

// Uses another one ("": the best there is); 0 where this machine or build has none of that name.
EXPORT int griffin_use(const char* name) {
  const griffin::Kernels* kernels = griffin::named(name);
  if (kernels) griffin::chosen.store(kernels, std::memory_order_relaxed);
  return kernels != nullptr;
}

EXPORT int griffin_version() { return 13; }
}
