// The CPU operators that make all weights of a convolution that commutes with the mirror from those
// of its first half of output channels.
#include "layers/maps.h"

namespace binaural::layers {
namespace {

// The input channels of a tap: those of up to two concatenated maps (parts), each with two halves,
// which the mirror exchanges.
struct Halves {
  Halves(int64_t channels, int64_t first_part)
      : sizes{first_part / 2, (channels - first_part) / 2} {
    STD_TORCH_CHECK(
        first_part >= 0 && first_part <= channels && first_part % 2 == 0 && channels % 2 == 0,
        "channels must be of two parts, each even");
  }
  // Calls body(begin of a half, begin of the other half of its part, channels of a half) for each.
  template <class Body>
  void each(Body body) const {
    int64_t begin = 0;
    for (const int64_t size : sizes) {
      body(begin, begin + size, size);
      body(begin + size, begin, size);
      begin += 2 * size;
    }
  }
  int64_t sizes[2];
};

template <class S>
Tensor forward(const Tensor& weight_, int64_t first_part, ScalarType dtype) {
  const Map<float> weight(weight_, "weight");
  weight.check_whole("weight");
  const Halves halves(weight.channels, first_part);
  Tensor both = new_tensor({2 * weight.batch, weight.height, weight.width, weight.channels}, dtype);
  const Kernels<S>& run = kernels_for<S>();
  S* as_is = data_of<S>(both);
  S* mirrored = as_is + weight.pixels() * weight.channels;
  const int64_t size = weight.width * weight.channels;
  for_rows(weight.batch * weight.height, size, [&](int64_t row) {
    const float* from = weight.data + row * size;
    run.convert(from, size, as_is + row * size);
    for (int64_t tap = 0; tap < weight.width; ++tap, from += weight.channels) {
      S* to = mirrored + row * size + (weight.width - 1 - tap) * weight.channels;
      halves.each([&](int64_t half, int64_t twin, int64_t channels) {
        run.convert(from + half, channels, to + twin);
      });
    }
  });
  return both;
}

template <class S>
Tensor backward(const Tensor& gradient_, int64_t first_part) {
  const Map<S> gradient(gradient_, "the gradient");
  gradient.check_whole("the gradient");
  STD_TORCH_CHECK(gradient.batch % 2 == 0, "the gradient must be of both halves");
  const Halves halves(gradient.channels, first_part);
  const int64_t outputs = gradient.batch / 2;
  Tensor dweight =
      new_tensor({outputs, gradient.height, gradient.width, gradient.channels}, ScalarType::Float);
  const Kernels<S>& run = kernels_for<S>();
  const S* mirrored =
      gradient.data + outputs * gradient.height * gradient.width * gradient.channels;
  const int64_t size = gradient.width * gradient.channels;
  for_rows(outputs * gradient.height, size, [&](int64_t row) {
    const S* as_is = gradient.data + row * size;
    float* to = data_of(dweight) + row * size;
    for (int64_t tap = 0; tap < gradient.width; ++tap) {
      const int64_t offset = tap * gradient.channels;
      const S* from = mirrored + row * size + (gradient.width - 1 - tap) * gradient.channels;
      halves.each([&](int64_t half, int64_t twin, int64_t channels) {
        run.add(as_is + offset + half, from + twin, channels, to + offset + half);
      });
    }
  });
  return dweight;
}

Tensor mirror_weight_forward(Tensor weight, int64_t first_part, ScalarType dtype) {
  STD_TORCH_CHECK(dtype == ScalarType::BFloat16 || dtype == ScalarType::Float,
                  "dtype must be float32 or bfloat16");
  return dtype == ScalarType::BFloat16 ? forward<BFloat16>(weight, first_part, dtype)
                                       : forward<float>(weight, first_part, dtype);
}

Tensor mirror_weight_backward(Tensor gradient, int64_t first_part) {
  return with_storage(
      gradient, [&](auto stored) { return backward<decltype(stored)>(gradient, first_part); });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("mirror_weight_forward", TORCH_BOX(&binaural::layers::mirror_weight_forward));
  m.impl("mirror_weight_backward", TORCH_BOX(&binaural::layers::mirror_weight_backward));
}
