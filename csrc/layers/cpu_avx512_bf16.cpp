// The kernels on AVX-512 with conversion to bfloat16.
#include "common/isa.h"

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")
#define BINAURAL_ISA avx512_bf16
#define BINAURAL_VECTOR_BYTES 64
#define BINAURAL_AVX512
#define BINAURAL_AVX512_BF16
#define BINAURAL_TILE_ROWS 12
#include "layers/cpu_table.h"
#endif
