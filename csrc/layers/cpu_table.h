// The kernels of one instruction set; the last thing that its translation unit includes.
#include "layers/cpu_average_pool.h"
#include "layers/cpu_batch_norm_relu.h"
#include "layers/cpu_conv_weight.h"
#include "layers/cpu_interpolate.h"
#include "layers/cpu_layer_norm.h"
#include "layers/cpu_mirror.h"
#include "layers/cpu_stem.h"

namespace binaural::layers {

namespace BINAURAL_ISA {
template <class S>
constexpr Kernels<S> kTable = {add_moments<S>,
                               normalise<S>,
                               normalise_pooled<S>,
                               add_gradients<S>,
                               differentiate<S>,
                               add_gradients_pooled<S>,
                               differentiate_pooled<S>,
                               interpolate<S>,
                               average_pool<S>,
                               spread_average<S>,
                               layer_norm<S>,
                               differentiate_layer_norm<S>,
                               add_mirrored<S>,
                               part_mirrored<S>,
                               convert<S>,
                               add<S>,
                               conv_weight<S>,
                               conv_weight_scratch,
                               add_patch_moments,
                               stem<S>,
                               add_stem_gradients<S>};
}

const KernelPair BINAURAL_TABLE = {BINAURAL_ISA::kTable<float>, BINAURAL_ISA::kTable<BFloat16>};

}  // namespace binaural::layers
