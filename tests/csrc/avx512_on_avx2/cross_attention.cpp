// The AVX-512 kernels of cross_attention with every vector split in two, for processors with AVX2
// alone.
#include "common/isa.h"

#pragma GCC target("avx2,fma")
#define BINAURAL_ISA avx512_on_avx2
#define BINAURAL_VECTOR_BYTES 64
// The register tile is small: twice 24 accumulators would not fit the registers.
#define BINAURAL_TILE_ROWS 4
#include "cross_attention/cpu_table.h"

extern "C" const void* const cross_attention_kernels =
    &binaural::cross_attention::kernels_avx512_on_avx2;
