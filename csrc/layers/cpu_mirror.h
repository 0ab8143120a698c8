// What the mirror does to rows of maps and of weights. Compiled once per instruction set, see
// cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

template <class S>
inline void mirror_half(const S* a, const S* b, int64_t width, int64_t channels, S* to) {
  const int64_t half = channels / 2;
  for (int64_t i = 0; i < width; ++i) {
    const int64_t from = i * channels, mirrored = (width - 1 - i) * channels;
    auto put_half = [&](int64_t begin, S* p) {
      for_channels(half, [&](int64_t c, auto count) {
        const V v = get(a + from + begin + c, count);
        put(p + c, b == nullptr ? v : v + get(b + from + begin + c, count), count);
      });
    };
    put_half(0, to + from);
    put_half(half, to + mirrored + half);
  }
}

template <class S>
inline void convert(const float* from, int64_t count, S* to) {
  for_channels(count, [&](int64_t i, auto lanes) { put(to + i, get(from + i, lanes), lanes); });
}

template <class S>
inline void add(const S* a, const S* b, int64_t count, float* to) {
  for_channels(count, [&](int64_t i, auto lanes) {
    put(to + i, get(a + i, lanes) + get(b + i, lanes), lanes);
  });
}

}  // namespace binaural::layers::BINAURAL_ISA
