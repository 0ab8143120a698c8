// The CPU operators that add the maps of both ears, where the second half of the output's channels
// is flipped along the width.
#include "layers/maps.h"

namespace binaural::layers {
namespace {

Tensor add_mirrored_forward(Tensor both) {
  return with_storage(both, [&](auto stored) {
    using S = decltype(stored);
    const Map<S> ears(both, "both");
    ears.check_whole("both");
    STD_TORCH_CHECK(ears.batch % 2 == 0 && ears.channels % 2 == 0,
                    "both must have an even batch and an even number of channels");
    Tensor y = new_map<S>(ears.batch / 2, ears.height, ears.width, ears.channels);
    const Kernels<S>& run = kernels_for<S>();
    const int64_t size = ears.width * ears.channels, rows = ears.batch / 2 * ears.height;
    for_rows(rows, size, [&](int64_t row) {
      run.add_mirrored(ears.data + row * size, ears.data + (rows + row) * size, ears.width,
                       ears.channels, data_of<S>(y) + row * size);
    });
    return y;
  });
}

Tensor add_mirrored_backward(Tensor gradient) {
  return with_storage(gradient, [&](auto stored) {
    using S = decltype(stored);
    const Map<S> dy(gradient, "the gradient");
    dy.check_whole("the gradient");
    STD_TORCH_CHECK(dy.channels % 2 == 0, "a map must have an even number of channels");
    Tensor dboth = new_map<S>(2 * dy.batch, dy.height, dy.width, dy.channels);
    const Kernels<S>& run = kernels_for<S>();
    const int64_t size = dy.width * dy.channels, rows = dy.batch * dy.height;
    for_rows(rows, size, [&](int64_t row) {
      run.split_mirrored(dy.data + row * size, dy.width, dy.channels,
                         data_of<S>(dboth) + row * size, data_of<S>(dboth) + (rows + row) * size);
    });
    return dboth;
  });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("add_mirrored_forward", TORCH_BOX(&binaural::layers::add_mirrored_forward));
  m.impl("add_mirrored_backward", TORCH_BOX(&binaural::layers::add_mirrored_backward));
}
