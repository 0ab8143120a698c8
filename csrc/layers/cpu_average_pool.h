// Means over blocks of pixels, and their gradient, row by row. Compiled once per instruction set,
// see cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

template <class S>
inline void average_pool(const S* x, int64_t row, Block block, int64_t width, int64_t channels,
                         S* y) {
  const float share = 1.0f / static_cast<float>(block.height * block.width);
  for (int64_t i = 0; i < width; ++i) {
    const S* corner = x + i * block.width * channels;
    for_channels(channels, [&](int64_t c, auto count) {
      V sum{};
      for (int64_t k = 0; k < block.height; ++k) {
        for (int64_t l = 0; l < block.width; ++l)
          sum += get(corner + k * row + l * channels + c, count);
      }
      put(y + i * channels + c, sum * share, count);
    });
  }
}

template <class S>
inline void spread_average(Rows<S> dy, Block block, int64_t width, int64_t channels, S* dx) {
  const float share = 1.0f / static_cast<float>(block.height * block.width);
  for (int64_t i = 0; i < width; ++i) {
    S* corner = dx + i * block.width * channels;
    for_channels(channels, [&](int64_t c, auto count) {
      const V v = get(dy.data + i * dy.step + c, count) * share;
      for (int64_t l = 0; l < block.width; ++l) put(corner + l * channels + c, v, count);
    });
  }
}

}  // namespace binaural::layers::BINAURAL_ISA
