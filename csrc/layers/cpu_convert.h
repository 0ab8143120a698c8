// Rows of numbers from and to how maps are stored. Compiled once per instruction set, see
// cpu_table.h.
#pragma once

#include "layers/cpu_batch_norm_relu.h"

namespace binaural::layers::BINAURAL_ISA {

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
