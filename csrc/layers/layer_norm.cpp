// The CPU operators of layer norm over the channels of each pixel.
#include <tuple>

#include "layers/maps.h"
#include "layers/sums.h"

namespace binaural::layers {
namespace {

template <class S>
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& x_, const Tensor& weight,
                                           const Tensor& bias, double eps) {
  const Map<S> x(x_, "x");
  x.check_whole("x");
  const Affine affine{numbers_of(weight, x.channels, "weight"),
                      numbers_of(bias, x.channels, "bias")};
  Tensor y = new_map<S>(x.batch, x.height, x.width, x.channels);
  const std::vector<int64_t> pixels{x.pixels()};
  Tensor mean = new_tensor(pixels, ScalarType::Float);
  Tensor inverse = new_tensor(pixels, ScalarType::Float);
  const Kernels<S>& run = kernels_for<S>();
  for_rows(x.batch * x.height, x.width * x.channels, [&](int64_t row) {
    const int64_t pixel = row * x.width, offset = pixel * x.channels;
    run.layer_norm(x.data + offset, x.width, x.channels, affine, static_cast<float>(eps),
                   data_of<S>(y) + offset, data_of(mean) + pixel, data_of(inverse) + pixel);
  });
  return {y, mean, inverse};
}

template <class S>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& dy_, const Tensor& x_,
                                            const Tensor& weight, const Tensor& mean,
                                            const Tensor& inverse) {
  const Map<S> x(x_, "x"), dy(dy_, "dy");
  x.check_whole("x");
  STD_TORCH_CHECK(dy.pixels() == x.pixels() && dy.channels == x.channels, "dy must have x's shape");
  const float* scale = numbers_of(weight, x.channels, "weight");
  const float* means = numbers_of(mean, x.pixels(), "mean");
  const float* inverses = numbers_of(inverse, x.pixels(), "inverse");
  Tensor dx = new_map<S>(x.batch, x.height, x.width, x.channels);
  const int64_t rows = x.batch * x.height, parts = std::min(kMostParts, rows);
  Sums sums(parts, x.channels);
  const Kernels<S>& run = kernels_for<S>();
  for_rows(parts, x.pixels() * x.channels / parts, [&](int64_t part) {
    std::vector<float> of_row(2 * x.channels);
    for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; ++row) {
      const int64_t pixel = row * x.width, offset = pixel * x.channels;
      std::fill(of_row.begin(), of_row.end(), 0.f);
      run.differentiate_layer_norm(x.data + offset, {dy.data + pixel * dy.step, dy.step}, x.width,
                                   x.channels, scale, means + pixel, inverses + pixel,
                                   data_of<S>(dx) + offset, of_row.data(),
                                   of_row.data() + x.channels);
      for (int64_t c = 0; c < 2 * x.channels; ++c) sums.first(part)[c] += of_row[c];
    }
  });
  sums.combine(x.channels);
  Tensor dweight = new_tensor({x.channels}, ScalarType::Float);
  Tensor dbias = new_tensor({x.channels}, ScalarType::Float);
  for (int64_t c = 0; c < x.channels; ++c) {
    data_of(dweight)[c] = static_cast<float>(sums.first(0)[c]);
    data_of(dbias)[c] = static_cast<float>(sums.second(0)[c]);
  }
  return {dx, dweight, dbias};
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_forward(Tensor x, Tensor weight, Tensor bias,
                                                      double eps) {
  return with_storage(x,
                      [&](auto stored) { return forward<decltype(stored)>(x, weight, bias, eps); });
}

std::tuple<Tensor, Tensor, Tensor> layer_norm_backward(Tensor dy, Tensor x, Tensor weight,
                                                       Tensor mean, Tensor inverse) {
  return with_storage(
      x, [&](auto stored) { return backward<decltype(stored)>(dy, x, weight, mean, inverse); });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("layer_norm_forward", TORCH_BOX(&binaural::layers::layer_norm_forward));
  m.impl("layer_norm_backward", TORCH_BOX(&binaural::layers::layer_norm_backward));
}
