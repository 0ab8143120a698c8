// The instruction set that the CPU kernels use.
//
// A kernel is written once, on the vectors of common/simd.h, and compiled once per instruction set,
// in one translation unit each: `cpu_generic.cpp`, `cpu_avx2.cpp`, `cpu_avx512.cpp`, and where it
// is faster `cpu_avx512_bf16.cpp`. Such a unit
//   1. includes this header, and with it every standard header that the kernel needs: otherwise
//      inline functions of the standard library would be compiled with instructions that the
//      user's processor may not have;
//   2. raises the target with `#pragma GCC target`;
//   3. defines BINAURAL_ISA, the namespace of its copy of the kernel, BINAURAL_VECTOR_BYTES,
//      BINAURAL_AVX512 if vectors of 64 bytes are compiled to AVX-512, and BINAURAL_AVX512_BF16 if
//      its conversion to bfloat16 may be used;
//   4. includes `cpu_table.h`, which includes the kernel and defines the table of its functions.
// Kernels for the tile registers of AMX are in `cpu_amx.cpp`, which does the first three.
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
  kGeneric,     // 16-byte vectors: SSE2, NEON
  kAvx2,        // AVX2, FMA
  kAvx512,      // AVX-512 F, BW, DQ, VL
  kAvx512Bf16,  // and its conversion to bfloat16
  kAmx,         // and products of tiles of bfloat16
  kTest,        // the kernels of binaural_test_kernels
};

// The best that this processor has, or what `binaural_force_isa` asked for.
Isa isa();

// Operations with kernels per instruction set: index of binaural_test_kernels.
enum Operation { kCrossAttention, kDepthLoss, kLayers, kOperations };

}  // namespace binaural

// For tests: tables of kernels that are compiled outside of this library, such as
// tests/csrc/avx512_on_avx2.cpp, one per operation. Null otherwise.
extern "C" __attribute__((visibility("default")))
const void* binaural_test_kernels[binaural::kOperations];

// For tests: use one of "generic", "avx2", "avx512", "avx512_bf16", "amx", "test" from now on, or
// the best again with "". Returns 0, or -1 if this build or this processor does not have it.
extern "C" __attribute__((visibility("default"))) int binaural_force_isa(const char* name);

// In an operation's namespace: declares its tables of kernels, one for each instruction set, and
// `best_kernels()`, which returns the one to use. On processors that convert to bfloat16 it is
// kernels_<with_bf16>: avx512 for operations without a unit of their own for these. It is static
// and not inline, because units with a raised target contain a copy too, which the linker must not
// choose.
#if defined(__x86_64__)
#define BINAURAL_DECLARE_TABLES(Table, with_bf16, operation)                 \
  extern const Table kernels_generic, kernels_avx2, kernels_avx512,          \
      BINAURAL_JOIN(kernels_, with_bf16);                                    \
  [[maybe_unused]] static const Table& best_kernels() {                      \
    switch (isa()) {                                                         \
      case Isa::kGeneric:                                                    \
        break;                                                               \
      case Isa::kAvx2:                                                       \
        return kernels_avx2;                                                 \
      case Isa::kAvx512:                                                     \
        return kernels_avx512;                                               \
      case Isa::kAvx512Bf16:                                                 \
      case Isa::kAmx:                                                        \
        return BINAURAL_JOIN(kernels_, with_bf16);                           \
      case Isa::kTest:                                                       \
        return *static_cast<const Table*>(binaural_test_kernels[operation]); \
    }                                                                        \
    return kernels_generic;                                                  \
  }
#else
#define BINAURAL_DECLARE_TABLES(Table, with_bf16, operation) \
  extern const Table kernels_generic;                        \
  [[maybe_unused]] static const Table& best_kernels() { return kernels_generic; }
#endif

// The name of the table that is compiled: kernels_generic, ...
#define BINAURAL_TABLE BINAURAL_JOIN(kernels_, BINAURAL_ISA)
#define BINAURAL_JOIN(a, b) BINAURAL_JOIN_(a, b)
#define BINAURAL_JOIN_(a, b) a##b
