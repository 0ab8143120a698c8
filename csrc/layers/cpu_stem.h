// A 3 × 3 convolution of a map of one or two channels, batch norm and ReLU, and their gradients,
// row by row. Compiled once per instruction set, see cpu_table.h.
#pragma once

#include "layers/cpu_channels.h"

namespace binaural::layers::BINAURAL_ISA {

// Σ a[j] b[j + d] over a row, for d = -2 to 2; b has two zeros before it, and zeros behind it.
BINAURAL_INLINE void correlate(const double* a, const double* b, int64_t width,
                               double (&products)[5]) {
  using D = Vec<double>;
  D sums[5]{};
  for (int64_t j = 0; j < width; j += kLanes<double>) {
    const int64_t left = width - j;
    const D here = left < kLanes<double> ? load_some<double>(a + j, left) : load<double>(a + j);
    for (int d = 0; d < 5; ++d) sums[d] += here * load<double>(b + j + d - 2);
  }
  for (int d = 0; d < 5; ++d) products[d] = total<double>(sums[d]);
}

// All patches that read this row are looked at together: two taps of them read it and one of the
// two rows below, or itself, at a distance of up to two pixels, and what differs is only which of
// its ends a tap never reaches. In double, since neighbours are alike, and what is looked for may
// be a small difference of these sums.
inline void add_patch_moments(const float* rows, int64_t row, int64_t above, int64_t below,
                              int64_t width, int64_t in_channels, double* scratch, double* sums) {
  const int64_t taps = 9 * in_channels, size = width + 4 + kLanes<double>;
  auto plane = [&](int64_t c, int64_t k) { return scratch + (k * in_channels + c) * size + 2; };
  const int64_t last = below < 2 ? below : 2;
  for (int64_t k = 0; k <= last; ++k) {
    for (int64_t c = 0; c < in_channels; ++c) {
      double* to = plane(c, k);
      to[-2] = to[-1] = 0;
      for (int64_t i = 0; i < width; ++i) to[i] = rows[k * row + i * in_channels + c];
      for (int64_t i = width; i < size - 2; ++i) to[i] = 0;
    }
  }
  // Rows of taps that reach this row, as the patch's upper, middle and lower one.
  const bool reached[3] = {below > 0, true, above > 0};
  for (int64_t c = 0; c < in_channels; ++c) {
    const double* a = plane(c, 0);
    Vec<double> all{};  // zeros follow the row
    for (int64_t i = 0; i < width; i += kLanes<double>) all += load<double>(a + i);
    const double sum = total<double>(all);
    const double unreached[3] = {a[width - 1], 0, a[0]};
    for (int64_t t = 0; t < 9; ++t) {
      if (reached[t / 3]) sums[t * in_channels + c] += sum - unreached[t % 3];
    }
    for (int64_t k = 0; k <= last; ++k) {
      for (int64_t other = 0; other < in_channels; ++other) {
        const double* b = plane(other, k);
        double products[5];
        correlate(a, b, width, products);
        for (int64_t t = 0; t < 9 - 3 * k; ++t) {
          if (!reached[t / 3]) continue;
          double* to = sums + taps + (t * in_channels + c) * taps + other;
          const int64_t end = t % 3 == 0 ? width - 1 : 0;
          for (int64_t u = 0; u < 3; ++u) {
            const int64_t d = u - t % 3;
            to[((t / 3 + k) * 3 + u) * in_channels] +=
                products[2 + d] - unreached[t % 3] * b[end + d];
          }
        }
      }
    }
  }
}

// The t-th number of a patch, given its first.
template <int kIn>
BINAURAL_INLINE const float* tap_at(const float* patch, int64_t row, int t) {
  return patch + t / (3 * kIn) * row + t % (3 * kIn);
}

// What makes one vector of channels.
template <int kIn>
struct StemChannels {
  static constexpr int kTaps = 9 * kIn;

  template <class Count>
  BINAURAL_INLINE StemChannels(const float* weights, Affine affine, int64_t channels, int64_t c,
                               Count count)
      : scale(get(affine.scale + c, count)), shift(get(affine.shift + c, count)) {
#pragma GCC unroll 18
    for (int t = 0; t < kTaps; ++t) weight[t] = get(weights + t * channels + c, count);
  }
  // Calls use(pixel, a) with what the convolution gives for each pixel; for four at once, so that
  // none waits for the other.
  template <class Use>
  BINAURAL_INLINE void for_pixels(const float* rows, int64_t row, int64_t begin, int64_t end,
                                  Use use) const {
    constexpr int kPixels = 4;
    int64_t i = begin;
    for (; i + kPixels <= end; i += kPixels) {
      V a[kPixels];
      apply(rows + i * kIn, row, a);
      for (int k = 0; k < kPixels; ++k) use(i + k, a[k]);
    }
    for (; i < end; ++i) {
      V a[1];
      apply(rows + i * kIn, row, a);
      use(i, a[0]);
    }
  }
  template <int kPixels>
  BINAURAL_INLINE void apply(const float* rows, int64_t row, V (&a)[kPixels]) const {
    for (V& v : a) v = V{};
#pragma GCC unroll 18
    for (int t = 0; t < kTaps; ++t) {
      const float* p = tap_at<kIn>(rows, row, t);
      for (int i = 0; i < kPixels; ++i) a[i] += weight[t] * p[i * kIn];
    }
  }
  // Not in the weights: where the norm makes much of little, that would round away what is left.
  BINAURAL_INLINE V normalise(V a) const { return a * scale + shift; }
  V weight[kTaps], scale, shift;
};

template <class S, int kIn>
inline void stem_of(const float* rows, int64_t row, int64_t width, int64_t channels,
                    const float* weights, Affine affine, S* y) {
  for_channels(channels, [&](int64_t c, auto count) {
    const StemChannels<kIn> make(weights, affine, channels, c, count);
    make.for_pixels(rows, row, 0, width, [&](int64_t i, V a) {
      put(y + i * channels + c, rectify(make.normalise(a)), count);
    });
  });
}

template <class S>
inline void stem(const float* rows, int64_t row, int64_t width, int64_t in_channels,
                 int64_t channels, const float* weights, Affine affine, S* y) {
  (in_channels == 1 ? stem_of<S, 1> : stem_of<S, 2>)(rows, row, width, channels, weights, affine,
                                                     y);
}

template <class S, int kIn>
inline void add_stem_gradients_of(const float* rows, int64_t row, int64_t width, int64_t channels,
                                  const float* weights, Affine affine, Rows<S> dy, double* sums) {
  constexpr int kTaps = 9 * kIn;
  constexpr int64_t kBlock = 32;  // pixels: weights and sums do not fit the registers together
  for_channels(channels, [&](int64_t c, auto count) {
    const StemChannels<kIn> make(weights, affine, channels, c, count);
    V all[2 + kTaps]{};
    for (int64_t begin = 0; begin < width; begin += kBlock) {
      const int64_t end = width - begin < kBlock ? width : begin + kBlock;
      V passed[kBlock], of_block[2 + kTaps]{};
      make.for_pixels(rows, row, begin, end, [&](int64_t i, V a) {
        const V g = make.normalise(a) > 0 ? get(dy.data + i * dy.step + c, count) : V{};
        of_block[0] += g;
        of_block[1] += g * a;
        passed[i - begin] = g;
      });
      for (int64_t i = begin; i < end; ++i) {
        const V g = passed[i - begin];
#pragma GCC unroll 18
        for (int t = 0; t < kTaps; ++t) of_block[2 + t] += g * *tap_at<kIn>(rows + i * kIn, row, t);
      }
#pragma GCC unroll 20
      for (int k = 0; k < 2 + kTaps; ++k) all[k] += of_block[k];
    }
#pragma GCC unroll 20
    for (int k = 0; k < 2 + kTaps; ++k) add_to(sums + k * channels + c, all[k], count);
  });
}

template <class S>
inline void add_stem_gradients(const float* rows, int64_t row, int64_t width, int64_t in_channels,
                               int64_t channels, const float* weights, Affine affine, Rows<S> dy,
                               double* sums) {
  (in_channels == 1 ? add_stem_gradients_of<S, 1> : add_stem_gradients_of<S, 2>)(rows, row, width,
                                                                                 channels, weights,
                                                                                 affine, dy, sums);
}

}  // namespace binaural::layers::BINAURAL_ISA
