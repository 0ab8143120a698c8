// The source of cpu_avx512.cpp with its vectors split in two, so that tests run it on any AVX2
// processor.
#include "common/isa.h"

#if defined(__x86_64__)
#pragma GCC target("avx2,fma")
#define BINAURAL_ISA avx512_on_avx2
#define BINAURAL_VECTOR_BYTES 64
#define BINAURAL_TILE_ROWS 4
#include "layers/cpu_table.h"
#endif
