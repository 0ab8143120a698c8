// The kernels on what every processor of the target has: SSE2, NEON.
#include "common/isa.h"

#define BINAURAL_ISA generic
#define BINAURAL_VECTOR_BYTES 16
#define BINAURAL_TILE_ROWS 6
#include "layers/cpu_table.h"
