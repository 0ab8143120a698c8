// The kernels of one instruction set; the last thing that its translation unit includes.
#include "depth_loss/cpu_sweep.h"

namespace binaural::depth_loss {

namespace BINAURAL_ISA {
template <class T>
constexpr Kernels kTable = {scratch_bytes<T>, sweep<T>, decode<T>};
}

const KernelPair BINAURAL_TABLE = {BINAURAL_ISA::kTable<float>, BINAURAL_ISA::kTable<double>};

}  // namespace binaural::depth_loss
