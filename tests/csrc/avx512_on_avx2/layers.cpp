// The AVX-512 kernels of layers with every vector split in two, for processors with AVX2 alone.
#include "common/isa.h"

#pragma GCC target("avx2,fma")
#define BINAURAL_ISA avx512_on_avx2
#define BINAURAL_VECTOR_BYTES 64
// The register tile is small: twice 24 accumulators would not fit the registers.
#define BINAURAL_TILE_ROWS 4
#include "layers/cpu_table.h"

extern "C" const void* const layers_kernels = &binaural::layers::kernels_avx512_on_avx2;
