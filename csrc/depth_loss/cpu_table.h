// The kernels of one instruction set; its translation unit includes this last.
#include "depth_loss/cpu_sweep.h"

namespace binaural::depth_loss {

namespace BINAURAL_ISA {
template <class T>
constexpr Kernels kTable = {
    .scratch_bytes = scratch_bytes<T>, .sweep = sweep<T>, .decode = decode<T>};
}

const KernelTables BINAURAL_TABLE = {.float32 = BINAURAL_ISA::kTable<float>,
                                     .float64 = BINAURAL_ISA::kTable<double>};

}  // namespace binaural::depth_loss
