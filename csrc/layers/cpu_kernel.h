// The interface between the CPU operators of the fused layers and their kernels, which are compiled
// once per instruction set (common/isa.h). All maps are channels-last: the channels of a pixel are
// adjacent.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/storage.h"

namespace binaural::layers {

// A normalisation, v · scale + shift per channel.
struct Affine {
  const float *scale, *shift;  // [C]
};

// One or two rows of an image; `step` is the distance between pixels, in elements.
template <class S>
struct Rows {
  const S* data;
  int64_t step;
};

// Bilinear interpolation along one axis: the inputs that one output is a weighted sum of, or in the
// gradient the outputs that one input contributes to. `count` adjacent ones, from `first` on.
struct Taps {
  int64_t first, count;
  const float* weights;
};

// A 3 × 3 convolution of maps [B, H, W, C], padded by 1.
struct Convolution {
  int64_t batch, height, width, in_channels, out_channels;
};
// in_channels must be a multiple of this: whole vectors of every instruction set.
constexpr int64_t kConvWeightChannels = 16;

// The kernels of one instruction set for maps stored as S; they compute in float.
template <class S>
struct Kernels {
  // Adds Σ (x - shift) and Σ (x - shift)² over the pixels to sum and square, [C].
  void (*add_moments)(const S* x, int64_t pixels, int64_t channels, const float* shift, double* sum,
                      double* square);
  // y = ReLU(x · scale + shift).
  void (*normalise)(const S* x, int64_t pixels, int64_t channels, Affine, S* y);
  // The same for two rows of `width` pixels, with the maximum of each 2 × 2 in pooled, a row of
  // width / 2 pixels. y may be null: then only pooled is written.
  void (*normalise_pooled)(const S* x, int64_t width, int64_t channels, Affine, S* y, S* pooled);
  // With g = dy where the ReLU passed, else 0: adds Σ g and Σ g (x - mean) to sum and product, [C].
  // dy.data may be null: then dy is 0.
  void (*add_gradients)(const S* x, Rows<S> dy, int64_t pixels, int64_t channels, Affine,
                        const float* mean, double* sum, double* product);
  // dx = scale · g + slope · x + offset.
  void (*differentiate)(const S* x, Rows<S> dy, int64_t pixels, int64_t channels, Affine,
                        const float* slope, const float* offset, S* dx);
  // The same two for two rows of `width` pixels, with dpooled added to dy at the first maximum of
  // each 2 × 2.
  void (*add_gradients_pooled)(const S* x, Rows<S> dy, const S* dpooled, int64_t width,
                               int64_t channels, Affine, const float* mean, double* sum,
                               double* product);
  void (*differentiate_pooled)(const S* x, Rows<S> dy, const S* dpooled, int64_t width,
                               int64_t channels, Affine, const float* slope, const float* offset,
                               S* dx);
  // Writes a row of `to`, `step` elements from pixel to pixel: each is the sum over the taps of its
  // column and of the row. Row r of the input starts at from + r · row; its pixels are from_step
  // elements apart.
  void (*interpolate)(const S* from, int64_t row, int64_t from_step, const Taps& rows,
                      const Taps* columns, int64_t from_width, int64_t width, int64_t channels,
                      float* scratch, S* to, int64_t step);
  // A row of the sum of both ears' maps: left's first half of channels + right's second, and,
  // flipped, right's first + left's second.
  void (*add_mirrored)(const S* left, const S* right, int64_t width, int64_t channels, S* to);
  // Its gradient.
  void (*split_mirrored)(const S* gradient, int64_t width, int64_t channels, S* left, S* right);
  // The gradient of a convolution's weights [out, 3, 3, in], for outputs `begin` to `end`.
  void (*conv_weight)(const S* x, const S* dy, const Convolution&, int64_t begin, int64_t end,
                      float* scratch, float* dweight);
  // The scratch that conv_weight needs for so many outputs, in floats; aligned to 64 bytes.
  int64_t (*conv_weight_scratch)(const Convolution&, int64_t outputs);
};

// The kernels of one instruction set, by how maps are stored.
struct KernelTables {
  Kernels<float> float32;
  Kernels<BFloat16> bfloat16;
};

BINAURAL_DECLARE_TABLES(KernelTables, avx512_bf16, kLayers)

}  // namespace binaural::layers
