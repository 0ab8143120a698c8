// The AVX-512 kernels of depth_loss with every vector split in two, for processors with AVX2 alone.
#include "common/isa.h"

#pragma GCC target("avx2,fma")
#define BINAURAL_ISA avx512_on_avx2
#define BINAURAL_VECTOR_BYTES 64
#include "depth_loss/cpu_table.h"

extern "C" const void* const depth_loss_kernels = &binaural::depth_loss::kernels_avx512_on_avx2;
