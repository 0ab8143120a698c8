#include "common/isa.h"

#include <atomic>

namespace binaural {
namespace {

struct Named {
  const char* name;
  Isa isa;
};

constexpr Named kNames[] = {{"generic", Isa::kGeneric},
                            {"avx2", Isa::kAvx2},
                            {"avx512", Isa::kAvx512},
                            {"avx512_bf16", Isa::kAvx512Bf16},
                            {"avx512_on_avx2", Isa::kAvx512OnAvx2}};

bool supported(Isa isa) {
  if (isa == Isa::kGeneric) return true;
#if defined(__x86_64__)
  if (isa == Isa::kAvx512Bf16 && !__builtin_cpu_supports("avx512bf16")) return false;
  if (isa == Isa::kAvx512 || isa == Isa::kAvx512Bf16) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

Isa best() {
  if (supported(Isa::kAvx512Bf16)) return Isa::kAvx512Bf16;
  if (supported(Isa::kAvx512)) return Isa::kAvx512;
  return supported(Isa::kAvx2) ? Isa::kAvx2 : Isa::kGeneric;
}

std::atomic<int> forced{-1};

}  // namespace

Isa isa() {
  static const Isa detected = best();
  const int wanted = forced.load(std::memory_order_relaxed);
  return wanted < 0 ? detected : static_cast<Isa>(wanted);
}

}  // namespace binaural

int binaural_force_isa(const char* name) {
  if (*name == '\0') {
    binaural::forced = -1;
    return 0;
  }
  for (const auto& candidate : binaural::kNames) {
    if (std::strcmp(name, candidate.name) == 0 && binaural::supported(candidate.isa)) {
      binaural::forced = static_cast<int>(candidate.isa);
      return 0;
    }
  }
  return -1;
}
