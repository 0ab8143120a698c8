// The CPU operators of layer norm over the channels of each pixel.
#include <tuple>

#include "layers/maps.h"

namespace binaural::layers {
namespace {

const float* of_channels(const Tensor& tensor, int64_t channels) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == ScalarType::Float &&
                      tensor.is_contiguous() && tensor.numel() == channels,
                  "weight and bias must be float32 tensors [C] on the CPU");
  return static_cast<const float*>(tensor.data_ptr());
}

float* data_of(const Tensor& tensor) { return static_cast<float*>(tensor.data_ptr()); }

template <class S>
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& x_, const Tensor& weight,
                                           const Tensor& bias, double eps) {
  const Map<S> x(x_, "x");
  STD_TORCH_CHECK(x.dense(), "x must be channels-last without gaps");
  const Affine affine{of_channels(weight, x.channels), of_channels(bias, x.channels)};
  Tensor y = new_map(x_, x.batch, x.height, x.width, x.channels);
  const std::vector<int64_t> pixels{x.pixels()};
  Tensor mean = torch::stable::new_empty(weight, pixels);
  Tensor inverse = torch::stable::new_empty(weight, pixels);
  const Kernels<S>& run = kernels_for<S>();
  for_rows(x.batch * x.height, x.width * x.channels, [&](int64_t row) {
    const int64_t pixel = row * x.width, offset = pixel * x.channels;
    run.layer_norm(x.data + offset, x.width, x.channels, affine, static_cast<float>(eps),
                   static_cast<S*>(y.data_ptr()) + offset, data_of(mean) + pixel,
                   data_of(inverse) + pixel);
  });
  return {y, mean, inverse};
}

template <class S>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& dy_, const Tensor& x_,
                                            const Tensor& weight, const Tensor& mean,
                                            const Tensor& inverse) {
  const Map<S> x(x_, "x"), dy(dy_, "dy");
  STD_TORCH_CHECK(x.dense() && dy.pixels() == x.pixels() && dy.channels == x.channels,
                  "x must be channels-last without gaps, and dy have its shape");
  of_channels(mean, x.pixels());
  of_channels(inverse, x.pixels());
  const float* scale = of_channels(weight, x.channels);
  Tensor dx = new_map(x_, x.batch, x.height, x.width, x.channels);
  // Rows are shared out in parts that depend on the shape alone: the sums are then the same bits
  // whatever the number of threads.
  constexpr int64_t kMost = 32;
  const int64_t rows = x.batch * x.height, parts = std::min(kMost, rows);
  std::vector<double> sums(parts * 2 * x.channels);
  const Kernels<S>& run = kernels_for<S>();
  for_rows(parts, x.pixels() * x.channels / parts, [&](int64_t part) {
    std::vector<float> of_row(2 * x.channels);
    double* const sum = sums.data() + part * 2 * x.channels;
    for (int64_t row = part * rows / parts; row < (part + 1) * rows / parts; ++row) {
      const int64_t pixel = row * x.width, offset = pixel * x.channels;
      std::fill(of_row.begin(), of_row.end(), 0.f);
      run.differentiate_layer_norm(
          x.data + offset, {dy.data + pixel * dy.step, dy.step}, x.width, x.channels, scale,
          data_of(mean) + pixel, data_of(inverse) + pixel, static_cast<S*>(dx.data_ptr()) + offset,
          of_row.data(), of_row.data() + x.channels);
      for (int64_t c = 0; c < 2 * x.channels; ++c) sum[c] += of_row[c];
    }
  });
  Tensor dweight = torch::stable::new_empty(weight, std::vector<int64_t>{x.channels});
  Tensor dbias = torch::stable::new_empty(weight, std::vector<int64_t>{x.channels});
  for (int64_t c = 0; c < x.channels; ++c) {
    double of_weight = 0, of_bias = 0;
    for (int64_t part = 0; part < parts; ++part) {
      of_weight += sums[part * 2 * x.channels + c];
      of_bias += sums[(part * 2 + 1) * x.channels + c];
    }
    data_of(dweight)[c] = static_cast<float>(of_weight);
    data_of(dbias)[c] = static_cast<float>(of_bias);
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
