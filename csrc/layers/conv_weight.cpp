// The CPU operator of the gradient of a 3 × 3 convolution's weights.
#include "common/memory.h"
#include "layers/maps.h"

namespace binaural::layers {
namespace {

template <class S>
Tensor gradient(const Tensor& dy_, const Tensor& x_) {
  const Map<S> dy(dy_, "dy"), x(x_, "x");
  dy.check_whole("dy");
  x.check_whole("x");
  STD_TORCH_CHECK(dy.batch == x.batch && dy.height == x.height && dy.width == x.width,
                  "dy must have x's batch, height and width");
  STD_TORCH_CHECK(x.channels % kConvWeightChannels == 0, "x must have a multiple of ",
                  kConvWeightChannels, " channels, got ", x.channels);
  const Convolution conv{x.batch, x.height, x.width, x.channels, dy.channels};
  Tensor dweight = new_tensor({dy.channels, 3, 3, x.channels}, ScalarType::Float);
  const Kernels<S>& run = kernels_for<S>();
  constexpr int64_t kLeastOutputs = 8;  // of a thread, since each thread packs all of x
  torch::stable::parallel_for(0, dy.channels, kLeastOutputs, [&](int64_t begin, int64_t end) {
    const int64_t numbers = run.conv_weight_scratch(conv, end - begin);
    float* scratch = static_cast<float*>(thread_scratch(numbers * sizeof(float)));
    run.conv_weight(x.data, dy.data, conv, begin, end, scratch, data_of(dweight));
  });
  return dweight;
}

Tensor conv_weight_gradient(Tensor dy, Tensor x) {
  return with_storage(x, [&](auto stored) { return gradient<decltype(stored)>(dy, x); });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("conv_weight_gradient", TORCH_BOX(&binaural::layers::conv_weight_gradient));
}
