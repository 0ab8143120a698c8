// Layer norm over the channels of each pixel, and its gradient. Compiled once per instruction set,
// see cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

// v with zeros in the lanes from `count` on.
BINAURAL_INLINE V first_of(V v, std::integral_constant<int64_t, kL>) { return v; }
BINAURAL_INLINE V first_of(V v, int64_t count) {
  return lane_numbers<float>() < static_cast<int32_t>(count) ? v : V{};
}

// Σ term(c, count) over all channels.
template <class Term>
BINAURAL_INLINE float sum_channels(int64_t channels, Term term) {
  V sum{};
  for_channels(channels, [&](int64_t c, auto count) { sum += first_of(term(c, count), count); });
  return total<float>(sum);
}

template <class S>
inline void layer_norm(const S* x, int64_t pixels, int64_t channels, Affine affine, float eps, S* y,
                       float* mean, float* inverse) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, y += channels) {
    const float middle =
        sum_channels(channels, [&](int64_t c, auto count) { return get(x + c, count); }) / channels;
    const float square = sum_channels(channels, [&](int64_t c, auto count) {
      const V d = get(x + c, count) - middle;
      return d * d;
    });
    const float factor = 1 / __builtin_sqrtf(square / channels + eps);
    mean[i] = middle;
    inverse[i] = factor;
    for_channels(channels, [&](int64_t c, auto count) {
      const V normal = (get(x + c, count) - middle) * factor;
      put(y + c, normal * get(affine.scale + c, count) + get(affine.shift + c, count), count);
    });
  }
}

template <class S>
inline void differentiate_layer_norm(const S* x, Rows<S> g, int64_t pixels, int64_t channels,
                                     const float* weight, const float* mean, const float* inverse,
                                     S* dx, float* dweight, float* dbias) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, dx += channels) {
    const S* dy = g.data + i * g.step;
    const float middle = mean[i], factor = inverse[i];
    V sum{}, product{};
    for_channels(channels, [&](int64_t c, auto count) {
      const V given = get(dy + c, count), normal = (get(x + c, count) - middle) * factor;
      const V weighted = given * get(weight + c, count);
      sum += weighted;
      product += weighted * normal;
      put(dweight + c, get(dweight + c, count) + given * normal, count);
      put(dbias + c, get(dbias + c, count) + given, count);
    });
    const float offset = total<float>(sum) / channels, slope = total<float>(product) / channels;
    for_channels(channels, [&](int64_t c, auto count) {
      const V normal = (get(x + c, count) - middle) * factor;
      const V weighted = get(dy + c, count) * get(weight + c, count);
      put(dx + c, (weighted - offset - normal * slope) * factor, count);
    });
  }
}

}  // namespace binaural::layers::BINAURAL_ISA
