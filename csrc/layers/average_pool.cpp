// The CPU operators of means over blocks of pixels.
#include "layers/maps.h"

namespace binaural::layers {
namespace {

template <class S>
Tensor forward(const Tensor& x_, Block block) {
  const Map<S> x(x_, "x");
  x.check_whole("x");
  STD_TORCH_CHECK(block.height > 0 && block.width > 0 && x.height % block.height == 0 &&
                      x.width % block.width == 0,
                  "a block's sides must divide x's height and width");
  const int64_t height = x.height / block.height, width = x.width / block.width,
                row = x.width * x.channels;
  Tensor y = new_map<S>(x.batch, height, width, x.channels);
  const Kernels<S>& run = kernels_for<S>();
  for_rows(x.batch * height, block.height * row, [&](int64_t r) {
    run.average_pool(x.data + r * block.height * row, row, block, width, x.channels,
                     data_of<S>(y) + r * width * x.channels);
  });
  return y;
}

template <class S>
Tensor backward(const Tensor& gradient, Block block) {
  const Map<S> dy(gradient, "the gradient");
  STD_TORCH_CHECK(block.height > 0 && block.width > 0 && dy.pixels() * dy.channels > 0,
                  "the gradient and a block must be not empty");
  const int64_t height = dy.height * block.height, width = dy.width * block.width;
  Tensor dx = new_map<S>(dy.batch, height, width, dy.channels);
  const Kernels<S>& run = kernels_for<S>();
  for_rows(dy.batch * height, width * dy.channels, [&](int64_t r) {
    run.spread_average({dy.data + r / block.height * dy.width * dy.step, dy.step}, block, dy.width,
                       dy.channels, data_of<S>(dx) + r * width * dy.channels);
  });
  return dx;
}

Tensor average_pool_forward(Tensor x, int64_t height, int64_t width) {
  return with_storage(x,
                      [&](auto stored) { return forward<decltype(stored)>(x, {height, width}); });
}

Tensor average_pool_backward(Tensor gradient, int64_t height, int64_t width) {
  return with_storage(
      gradient, [&](auto stored) { return backward<decltype(stored)>(gradient, {height, width}); });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("average_pool_forward", TORCH_BOX(&binaural::layers::average_pool_forward));
  m.impl("average_pool_backward", TORCH_BOX(&binaural::layers::average_pool_backward));
}
