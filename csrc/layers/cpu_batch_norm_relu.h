// Batch norm, ReLU and max-pooling, and their gradients, row by row. Compiled once per instruction
// set, see cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

template <class Count>
BINAURAL_INLINE void add_to(double* sums, V v, Count count) {
  float lanes[kL];
  store<float>(lanes, v);
  for (int64_t lane = 0; lane < count; ++lane) sums[lane] += lanes[lane];
}

// Two sums over the pixels of one vector of channels; two pixels at a time, so that neither waits
// for the other. term(pixel) gives what is added to each.
template <class Count, class Term>
BINAURAL_INLINE void add_sums(int64_t pixels, Count count, double* first, double* second,
                              Term term) {
  V a[2]{}, b[2]{};
  int64_t i = 0;
  for (; i + 2 <= pixels; i += 2) {
    term(i, a[0], b[0]);
    term(i + 1, a[1], b[1]);
  }
  if (i < pixels) term(i, a[0], b[0]);
  add_to(first, a[0] + a[1], count);
  add_to(second, b[0] + b[1], count);
}

template <class S>
inline void add_moments(const S* x, int64_t pixels, int64_t channels, const float* shift,
                        double* sum, double* square) {
  for_channels(channels, [&](int64_t c, auto count) {
    const V origin = get(shift + c, count);
    add_sums(pixels, count, sum + c, square + c, [&](int64_t i, V& a, V& b) {
      const V d = get(x + i * channels + c, count) - origin;
      a += d;
      b += d * d;
    });
  });
}

// NaN stays NaN.
BINAURAL_INLINE V rectify(V v) { return v < 0 ? V{} : v; }

template <class S>
inline void normalise(const S* x, int64_t pixels, int64_t channels, Affine affine, S* y) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, y += channels) {
    for_channels(channels, [&](int64_t c, auto count) {
      const V v = get(x + c, count) * get(affine.scale + c, count) + get(affine.shift + c, count);
      put(y + c, rectify(v), count);
    });
  }
}

template <class S>
inline void pool(const S* y, int64_t width, int64_t channels, S* pooled) {
  const S* below = y + width * channels;
  for (int64_t i = 0; i < width / 2; ++i) {
    const int64_t left = 2 * i * channels, right = left + channels;
    for_channels(channels, [&](int64_t c, auto count) {
      const V upper = maximum<float>(get(y + left + c, count), get(y + right + c, count));
      const V lower = maximum<float>(get(below + left + c, count), get(below + right + c, count));
      put(pooled + i * channels + c, maximum<float>(upper, lower), count);
    });
  }
}

// Of one vector of channels; 0 where there are no rows.
template <class S, class Count>
BINAURAL_INLINE V gradient_at(Rows<S> dy, int64_t pixel, int64_t c, Count count) {
  return dy.data == nullptr ? V{} : get(dy.data + pixel * dy.step + c, count);
}

template <class S>
inline void unpool(const S* x, Rows<S> dy, const S* dpooled, int64_t width, int64_t channels,
                   Affine affine, S* sum) {
  for (int64_t i = 0; i < width / 2; ++i) {
    const int64_t pixels[4] = {2 * i, 2 * i + 1, width + 2 * i, width + 2 * i + 1};
    for_channels(channels, [&](int64_t c, auto count) {
      const V scale = get(affine.scale + c, count), shift = get(affine.shift + c, count);
      V y[4], most = V{};
      for (int k = 0; k < 4; ++k) {
        y[k] = get(x + pixels[k] * channels + c, count) * scale + shift;
        most = maximum<float>(y[k], most);
      }
      // Where all four are 0 after the ReLU nothing flows, whoever takes it.
      V left = get(dpooled + i * channels + c, count);
      for (int k = 0; k < 4; ++k) {
        const V taken = y[k] == most ? left : V{};
        left = y[k] == most ? V{} : left;
        put(sum + pixels[k] * channels + c, gradient_at(dy, pixels[k], c, count) + taken, count);
      }
    });
  }
  if (width % 2 == 0) return;
  for (int64_t pixel : {width - 1, 2 * width - 1}) {
    for_channels(channels, [&](int64_t c, auto count) {
      put(sum + pixel * channels + c, gradient_at(dy, pixel, c, count), count);
    });
  }
}

template <class S>
inline void add_gradients(const S* x, Rows<S> g, int64_t pixels, int64_t channels, Affine affine,
                          const float* mean, double* sum, double* product) {
  for_channels(channels, [&](int64_t c, auto count) {
    const V scale = get(affine.scale + c, count), shift = get(affine.shift + c, count);
    const V middle = get(mean + c, count);
    add_sums(pixels, count, sum + c, product + c, [&](int64_t i, V& a, V& b) {
      const V v = get(x + i * channels + c, count);
      const V passed = v * scale + shift > 0 ? get(g.data + i * g.step + c, count) : V{};
      a += passed;
      b += passed * (v - middle);
    });
  });
}

template <class S>
inline void differentiate(const S* x, Rows<S> g, int64_t pixels, int64_t channels, Affine affine,
                          const float* slope, const float* offset, S* dx) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, dx += channels) {
    for_channels(channels, [&](int64_t c, auto count) {
      const V v = get(x + c, count), scale = get(affine.scale + c, count);
      const V y = v * scale + get(affine.shift + c, count);
      const V passed = y > 0 ? get(g.data + i * g.step + c, count) : V{};
      put(dx + c, scale * passed + (get(slope + c, count) * v + get(offset + c, count)), count);
    });
  }
}

}  // namespace binaural::layers::BINAURAL_ISA
