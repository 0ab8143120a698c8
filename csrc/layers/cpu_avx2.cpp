// The kernels on AVX2 with fused multiply-add.
#include "common/isa.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define BINAURAL_ISA avx2
#define BINAURAL_VECTOR_BYTES 32
#define BINAURAL_TILE_ROWS 6
#include "layers/cpu_table.h"
#endif
