// Which instruction set the CPU kernels use.
//
// A kernel is written once, on the vectors of common/simd.h, and compiled once per instruction set,
// in one translation unit each: `cpu_generic.cpp`, `cpu_avx2.cpp`, `cpu_avx512.cpp`, and where it
// is worth one `cpu_avx512_bf16.cpp`. Such a unit
//   1. includes this header, and with it every standard header that the kernel needs, so that no
//   inline
//      function of the standard library is compiled for a processor that the user may not have;
//   2. raises the target with `#pragma GCC target`;
//   3. defines BINAURAL_ISA, the namespace of its copy of the kernel, BINAURAL_VECTOR_BYTES, and
//      BINAURAL_AVX512 if that is what vectors of 64 bytes are compiled to, and
//      BINAURAL_AVX512_BF16 if they may be converted by instructions too;
//   4. includes `cpu_table.h`, which includes the kernel and defines the table of its functions.
// Kernels for the tile registers of AMX are written for these alone, in `cpu_amx.cpp`, which does
// the first three.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

// Where the tile registers of AMX can be used, if the processor has any.
#if defined(__x86_64__) && defined(__linux__)
#define BINAURAL_TILES
#endif

namespace binaural {

enum class Isa {
  kGeneric,       // 16-byte vectors: SSE2, NEON
  kAvx2,          // AVX2, FMA
  kAvx512,        // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,    // and its conversion to bfloat16
  kAmx,           // and products of tiles of bfloat16
  kAvx512OnAvx2,  // for tests: the AVX-512 kernel, compiled to AVX2
};

// The best that this processor has, or what `binaural_force_isa` asked for.
Isa isa();

}  // namespace binaural

// In an operation's namespace: declares its tables of kernels, one for each instruction set, and
// `best_kernels()`, the one to use. With conversion to bfloat16 it takes those of `with_bf16`:
// avx512 where converting is too small a part for a unit of its own. That is static, and not
// inline, because units with a raised target see it too: the linker must not take their copy of it.
#if defined(__x86_64__)
#define BINAURAL_DECLARE_TABLES(Table, with_bf16)                                           \
  extern const Table kernels_generic, kernels_avx2, kernels_avx512, kernels_avx512_on_avx2, \
      BINAURAL_JOIN(kernels_, with_bf16);                                                   \
  [[maybe_unused]] static const Table& best_kernels() {                                     \
    switch (isa()) {                                                                        \
      case Isa::kGeneric:                                                                   \
        break;                                                                              \
      case Isa::kAvx2:                                                                      \
        return kernels_avx2;                                                                \
      case Isa::kAvx512:                                                                    \
        return kernels_avx512;                                                              \
      case Isa::kAvx512Bf16:                                                                \
      case Isa::kAmx:                                                                       \
        return BINAURAL_JOIN(kernels_, with_bf16);                                          \
      case Isa::kAvx512OnAvx2:                                                              \
        return kernels_avx512_on_avx2;                                                      \
    }                                                                                       \
    return kernels_generic;                                                                 \
  }
#else
#define BINAURAL_DECLARE_TABLES(Table, with_bf16) \
  extern const Table kernels_generic;             \
  [[maybe_unused]] static const Table& best_kernels() { return kernels_generic; }
#endif

// The name of the table that is compiled: kernels_generic, ...
#define BINAURAL_TABLE BINAURAL_JOIN(kernels_, BINAURAL_ISA)
#define BINAURAL_JOIN(a, b) BINAURAL_JOIN_(a, b)
#define BINAURAL_JOIN_(a, b) a##b

// For tests: take one of "generic", "avx2", "avx512", "avx512_bf16", "amx", "avx512_on_avx2" from
// now on, or what is best again with "". Returns 0, or -1 if this build or this processor does not
// have it.
extern "C" __attribute__((visibility("default"))) int binaural_force_isa(const char* name);
