// The kernels of one instruction set; the last thing that its translation unit includes.
#include "layers/cpu_batch_norm_relu.h"
#include "layers/cpu_interpolate.h"

#define BINAURAL_JOIN(a, b) a##b
#define BINAURAL_TABLE(isa) BINAURAL_JOIN(kernels_, isa)

namespace binaural::layers {

namespace BINAURAL_ISA {
template <class S>
constexpr Kernels<S> kTable = {add_moments<S>,   normalise<S>,     pool<S>,       unpool<S>,
                               add_gradients<S>, differentiate<S>, interpolate<S>};
}

extern const KernelPair BINAURAL_TABLE(BINAURAL_ISA);
const KernelPair BINAURAL_TABLE(BINAURAL_ISA) = {BINAURAL_ISA::kTable<float>,
                                                 BINAURAL_ISA::kTable<BFloat16>};

}  // namespace binaural::layers
