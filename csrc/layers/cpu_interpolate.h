// Bilinear interpolation of a row, or its gradient: a weighted sum over rows, then over columns.
// Compiled once per instruction set, see cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

// The weighted sum of the taps, vectors `step` elements apart.
template <class S, class Count>
BINAURAL_INLINE V weigh(const Taps& taps, const S* from, int64_t step, Count count) {
  V total = taps.weights[0] * get(from, count);
  for (int64_t k = 1; k < taps.count; ++k) total += taps.weights[k] * get(from + k * step, count);
  return total;
}

template <class S>
inline void interpolate(const S* from, int64_t row, int64_t from_step, const Taps& rows,
                        const Taps* columns, int64_t from_width, int64_t width, int64_t channels,
                        float* scratch, S* to, int64_t step) {
  const S* first = from + rows.first * row;
  for (int64_t i = 0; i < from_width; ++i) {
    for_channels(channels, [&](int64_t c, auto count) {
      put(scratch + i * channels + c, weigh(rows, first + i * from_step + c, row, count), count);
    });
  }
  for (int64_t i = 0; i < width; ++i) {
    const Taps& taps = columns[i];
    for_channels(channels, [&](int64_t c, auto count) {
      put(to + i * step + c, weigh(taps, scratch + taps.first * channels + c, channels, count),
          count);
    });
  }
}

}  // namespace binaural::layers::BINAURAL_ISA
