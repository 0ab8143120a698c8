#include "common/isa.h"

#include <atomic>

#if defined(BINAURAL_TILES)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace binaural {
namespace {

struct Named {
  const char* name;
  Isa isa;
};

constexpr Named kNames[] = {{"generic", Isa::kGeneric}, {"avx2", Isa::kAvx2},
                            {"avx512", Isa::kAvx512},   {"avx512_bf16", Isa::kAvx512Bf16},
                            {"amx", Isa::kAmx},         {"test", Isa::kTest}};

// Whether the processor has tile registers and Linux lets this process use them, which it must be
// asked for once.
bool has_tiles() {
#if defined(BINAURAL_TILES)
  if (!__builtin_cpu_supports("amx-tile") || !__builtin_cpu_supports("amx-bf16")) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
  return false;
#endif
}

bool has_test_kernels() {
  for (const void* table : binaural_test_kernels) {
    if (table == nullptr) return false;
  }
  return true;
}

bool supported(Isa isa) {
  if (isa == Isa::kGeneric) return true;
  if (isa == Isa::kTest) return has_test_kernels();
#if defined(__x86_64__)
  const bool bf16 = isa == Isa::kAvx512Bf16 || isa == Isa::kAmx;
  if (isa == Isa::kAmx && !has_tiles()) return false;
  if (bf16 && !__builtin_cpu_supports("avx512bf16")) return false;
  if (isa == Isa::kAvx512 || bf16) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#else
  return false;
#endif
}

Isa best() {
  for (const Isa isa : {Isa::kAmx, Isa::kAvx512Bf16, Isa::kAvx512, Isa::kAvx2}) {
    if (supported(isa)) return isa;
  }
  return Isa::kGeneric;
}

std::atomic<int> forced{-1};

}  // namespace

Isa isa() {
  static const Isa detected = best();
  const int wanted = forced.load(std::memory_order_relaxed);
  return wanted < 0 ? detected : static_cast<Isa>(wanted);
}

}  // namespace binaural

const void* binaural_test_kernels[binaural::kOperations] = {};

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
