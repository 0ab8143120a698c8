// The kernels of one instruction set; included last in its translation unit.
#include "layers/cpu_add_mirrored.h"
#include "layers/cpu_batch_norm_relu.h"
#include "layers/cpu_conv_weight.h"
#include "layers/cpu_interpolate.h"

namespace binaural::layers {

namespace BINAURAL_ISA {
template <class S>
constexpr Kernels<S> kTable = {
    .add_moments = add_moments<S>,
    .normalise = normalise<S>,
    .normalise_pooled = normalise_pooled<S>,
    .add_gradients = add_gradients<S>,
    .differentiate = differentiate<S>,
    .add_gradients_pooled = add_gradients_pooled<S>,
    .differentiate_pooled = differentiate_pooled<S>,
    .interpolate = interpolate<S>,
    .add_mirrored = add_mirrored<S>,
    .split_mirrored = split_mirrored<S>,
    .conv_weight = conv_weight<S>,
    .conv_weight_scratch = conv_weight_scratch,
};
}

const KernelTables BINAURAL_TABLE = {
    .float32 = BINAURAL_ISA::kTable<float>,
    .bfloat16 = BINAURAL_ISA::kTable<BFloat16>,
};

}  // namespace binaural::layers
