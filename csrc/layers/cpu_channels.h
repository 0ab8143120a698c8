// Vectors over the channels of a pixel. Compiled once per instruction set, see cpu_table.h.
#pragma once

#include "common/simd.h"
#include "layers/cpu_kernel.h"

namespace binaural::layers::BINAURAL_ISA {

using namespace ::binaural::BINAURAL_ISA;
using V = Vec<float>;
constexpr int64_t kL = kLanes<float>;

// Calls body(channel, count) for each vector of channels; count < kL only in the last, a constant
// kL in the others.
template <class Body>
BINAURAL_INLINE void for_channels(int64_t channels, Body body) {
  int64_t c = 0;
  for (; c + kL <= channels; c += kL) body(c, std::integral_constant<int64_t, kL>{});
  if (c < channels) body(c, channels - c);
}

template <class S>
BINAURAL_INLINE V get(const S* p, std::integral_constant<int64_t, kL>) {
  return load_as<float>(p);
}
template <class S>
BINAURAL_INLINE V get(const S* p, int64_t count) {
  return load_some<float>(p, count);
}
template <class S>
BINAURAL_INLINE void put(S* p, V v, std::integral_constant<int64_t, kL>) {
  store_as<float>(p, v);
}
template <class S>
BINAURAL_INLINE void put(S* p, V v, int64_t count) {
  store_some<float>(p, v, count);
}

template <class Count>
BINAURAL_INLINE void add_to(double* sums, V v, Count count) {
  float lanes[kL];
  store<float>(lanes, v);
  for (int64_t lane = 0; lane < count; ++lane) sums[lane] += lanes[lane];
}

// NaN stays NaN.
BINAURAL_INLINE V rectify(V v) { return v < 0 ? V{} : v; }

}  // namespace binaural::layers::BINAURAL_ISA
