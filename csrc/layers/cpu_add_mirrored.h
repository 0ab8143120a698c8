// The sum of both ears' maps, half of it flipped, and its gradient, row by row. Compiled once per
// instruction set, see cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

template <class S>
inline void add_mirrored(const S* left, const S* right, int64_t width, int64_t channels, S* to) {
  const int64_t half = channels / 2;
  for (int64_t i = 0; i < width; ++i) {
    const int64_t from = i * channels, mirrored = (width - 1 - i) * channels;
    const S *own = left + from, *other = right + from;
    for_channels(half, [&](int64_t c, auto count) {
      put(to + from + c, get(own + c, count) + get(other + half + c, count), count);
      put(to + mirrored + half + c, get(other + c, count) + get(own + half + c, count), count);
    });
  }
}

template <class S>
inline void split_mirrored(const S* gradient, int64_t width, int64_t channels, S* left, S* right) {
  const int64_t half = channels / 2;
  for (int64_t i = 0; i < width; ++i) {
    const int64_t to = i * channels, mirrored = (width - 1 - i) * channels;
    const S *straight = gradient + to, *flipped = gradient + mirrored + half;
    for_channels(half, [&](int64_t c, auto count) {
      const V first = get(straight + c, count), second = get(flipped + c, count);
      put(left + to + c, first, count);
      put(left + to + half + c, second, count);
      put(right + to + c, second, count);
      put(right + to + half + c, first, count);
    });
  }
}

}  // namespace binaural::layers::BINAURAL_ISA
