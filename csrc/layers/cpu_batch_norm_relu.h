// Batch norm, ReLU and max-pooling, and their gradients, row by row. Compiled once per instruction
// set, see cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

// Two sums over the pixels of one vector of channels, with separate accumulators for even and odd
// pixels to shorten the chain of dependent additions. term(pixel, a, b) adds to both.
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

template <class S>
inline void normalise(const S* x, int64_t pixels, int64_t channels, Affine affine, S* y) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, y += channels) {
    for_channels(channels, [&](int64_t c, auto count) {
      const V v = get(x + c, count) * get(affine.scale + c, count) + get(affine.shift + c, count);
      put(y + c, rectify(v), count);
    });
  }
}

// Offsets of the four pixels of the i-th 2 × 2 of two rows. The first maximum is the first in this
// order.
struct Square {
  BINAURAL_INLINE Square(int64_t i, int64_t width, int64_t step)
      : offset{2 * i * step, (2 * i + 1) * step, (width + 2 * i) * step,
               (width + 2 * i + 1) * step} {}
  int64_t offset[4];
};

template <class S>
inline void normalise_pooled(const S* x, int64_t width, int64_t channels, Affine affine, S* y,
                             S* pooled) {
  for (int64_t i = 0; i < width / 2; ++i) {
    const Square at(i, width, channels);
    for_channels(channels, [&](int64_t c, auto count) {
      const V scale = get(affine.scale + c, count), shift = get(affine.shift + c, count);
      V most{};
      for (const int64_t offset : at.offset) {
        const V v = rectify(get(x + offset + c, count) * scale + shift);
        if (y != nullptr) put(y + offset + c, v, count);
        most = maximum<float>(most, v);
      }
      put(pooled + i * channels + c, most, count);
    });
  }
  if (y == nullptr || width % 2 == 0) return;
  for (const int64_t pixel : {width - 1, 2 * width - 1}) {
    normalise(x + pixel * channels, 1, channels, affine, y + pixel * channels);
  }
}

// One vector of channels of dy; 0 if there is none.
template <class S, class Count>
BINAURAL_INLINE V gradient_at(Rows<S> dy, int64_t offset, Count count) {
  return dy.data == nullptr ? V{} : get(dy.data + offset, count);
}

template <class S>
inline void add_gradients(const S* x, Rows<S> dy, int64_t pixels, int64_t channels, Affine affine,
                          const float* mean, double* sum, double* product) {
  if (dy.data == nullptr) return;
  for_channels(channels, [&](int64_t c, auto count) {
    const V scale = get(affine.scale + c, count), shift = get(affine.shift + c, count);
    const V middle = get(mean + c, count);
    add_sums(pixels, count, sum + c, product + c, [&](int64_t i, V& a, V& b) {
      const V v = get(x + i * channels + c, count);
      const V passed = v * scale + shift > 0 ? get(dy.data + i * dy.step + c, count) : V{};
      a += passed;
      b += passed * (v - middle);
    });
  });
}

template <class S>
inline void differentiate(const S* x, Rows<S> dy, int64_t pixels, int64_t channels, Affine affine,
                          const float* slope, const float* offset, S* dx) {
  for (int64_t i = 0; i < pixels; ++i, x += channels, dx += channels) {
    for_channels(channels, [&](int64_t c, auto count) {
      const V v = get(x + c, count), scale = get(affine.scale + c, count);
      const V y = v * scale + get(affine.shift + c, count);
      const V passed = y > 0 ? gradient_at(dy, i * dy.step + c, count) : V{};
      put(dx + c, scale * passed + (get(slope + c, count) * v + get(offset + c, count)), count);
    });
  }
}

// One vector of channels of the four pixels of a 2 × 2: x, y before the ReLU, and the maximum of y
// and 0.
template <class S, class Count>
struct Four {
  BINAURAL_INLINE Four(const S* p, const Square& at, V scale, V shift, Count count) {
    for (int k = 0; k < 4; ++k) {
      x[k] = get(p + at.offset[k], count);
      y[k] = x[k] * scale + shift;
      most = maximum<float>(y[k], most);
    }
  }
  V x[4], y[4], most{};
};

template <class S>
inline void add_gradients_pooled(const S* x, Rows<S> dy, const S* dpooled, int64_t width,
                                 int64_t channels, Affine affine, const float* mean, double* sum,
                                 double* product) {
  // The gradient of the rows themselves, then that of the pooled row, which goes to one pixel of
  // four.
  add_gradients(x, dy, 2 * width, channels, affine, mean, sum, product);
  for_channels(channels, [&](int64_t c, auto count) {
    const V scale = get(affine.scale + c, count), shift = get(affine.shift + c, count);
    const V middle = get(mean + c, count);
    add_sums(width / 2, count, sum + c, product + c, [&](int64_t i, V& a, V& b) {
      const Four four(x + c, Square(i, width, channels), scale, shift, count);
      V taken = four.x[3];
      for (int k = 2; k >= 0; --k) taken = four.y[k] == four.most ? four.x[k] : taken;
      // If all four are 0 after the ReLU, the gradient is zero.
      const V passed = four.most > 0 ? get(dpooled + i * channels + c, count) : V{};
      a += passed;
      b += passed * (taken - middle);
    });
  });
}

template <class S>
inline void differentiate_pooled(const S* x, Rows<S> dy, const S* dpooled, int64_t width,
                                 int64_t channels, Affine affine, const float* slope,
                                 const float* offset, S* dx) {
  for (int64_t i = 0; i < width / 2; ++i) {
    const Square at(i, width, channels), of_dy(i, width, dy.step);
    for_channels(channels, [&](int64_t c, auto count) {
      const V scale = get(affine.scale + c, count), shift = get(affine.shift + c, count);
      const Four four(x + c, at, scale, shift, count);
      V left = get(dpooled + i * channels + c, count);
      for (int k = 0; k < 4; ++k) {
        const V taken = four.y[k] == four.most ? left : V{};
        left = four.y[k] == four.most ? V{} : left;
        const V g = gradient_at(dy, of_dy.offset[k] + c, count) + taken;
        const V passed = four.y[k] > 0 ? g : V{};
        const V along = get(slope + c, count) * four.x[k] + get(offset + c, count);
        put(dx + at.offset[k] + c, scale * passed + along, count);
      }
    });
  }
  if (width % 2 == 0) return;
  for (const int64_t pixel : {width - 1, 2 * width - 1}) {
    const Rows<S> given{dy.data == nullptr ? nullptr : dy.data + pixel * dy.step, dy.step};
    differentiate(x + pixel * channels, given, 1, channels, affine, slope, offset,
                  dx + pixel * channels);
  }
}

}  // namespace binaural::layers::BINAURAL_ISA
