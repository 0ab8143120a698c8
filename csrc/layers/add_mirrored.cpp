// The CPU operators that add two maps and mirror the second half of their channels.
#include "layers/maps.h"

namespace binaural::layers {
namespace {

template <class S>
Tensor mirror_half(const Tensor& like, const Map<S>& a, const Map<S>* b) {
  STD_TORCH_CHECK(a.channels % 2 == 0, "a map must have an even number of channels");
  Tensor y = new_map(like, a.batch, a.height, a.width, a.channels);
  const Kernels<S>& run = kernels_for<S>();
  const int64_t size = a.width * a.channels;
  for_rows(a.batch * a.height, size, [&](int64_t row) {
    const int64_t offset = row * size;
    run.mirror_half(a.data + offset, b == nullptr ? nullptr : b->data + offset, a.width, a.channels,
                    data_of<S>(y) + offset);
  });
  return y;
}

Tensor add_mirrored_forward(Tensor a, Tensor b) {
  return with_storage(a, [&](auto stored) {
    using S = decltype(stored);
    const Map<S> first(a, "a"), second(b, "b");
    first.check_whole("a");
    STD_TORCH_CHECK(second.dense() && second.pixels() == first.pixels() &&
                        second.width == first.width && second.channels == first.channels,
                    "b must have a's shape");
    return mirror_half<S>(a, first, &second);
  });
}

Tensor add_mirrored_backward(Tensor gradient) {
  return with_storage(gradient, [&](auto stored) {
    using S = decltype(stored);
    const Map<S> whole(gradient, "the gradient");
    whole.check_whole("the gradient");
    return mirror_half<S>(gradient, whole, nullptr);
  });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("add_mirrored_forward", TORCH_BOX(&binaural::layers::add_mirrored_forward));
  m.impl("add_mirrored_backward", TORCH_BOX(&binaural::layers::add_mirrored_backward));
}
