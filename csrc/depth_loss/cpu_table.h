// The kernels of one instruction set; the last thing that its translation unit includes.
#include "depth_loss/cpu_sweep.h"

#define BINAURAL_JOIN(a, b) a##b
#define BINAURAL_TABLE(isa) BINAURAL_JOIN(kernels_, isa)

namespace binaural::depth_loss {

namespace BINAURAL_ISA {
template <class T>
constexpr Kernels kTable = {scratch_bytes<T>, sweep<T>, decode<T>};
}

extern const KernelPair BINAURAL_TABLE(BINAURAL_ISA);
const KernelPair BINAURAL_TABLE(BINAURAL_ISA) = {BINAURAL_ISA::kTable<float>,
                                                 BINAURAL_ISA::kTable<double>};

}  // namespace binaural::depth_loss
