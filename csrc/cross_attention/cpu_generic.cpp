// The kernels on 16-byte vectors, which every processor that PyTorch supports has.
#include "common/isa.h"

#define BINAURAL_ISA generic
#define BINAURAL_VECTOR_BYTES 16
#define BINAURAL_TILE_ROWS 6
#include "cross_attention/cpu_table.h"
