// What the CPU operators ask of the kernels, which are compiled once per instruction set
// (common/isa.h). All maps are channels-last: the channels of a pixel lie side by side.
#pragma once

#include <cstdint>

#include "common/isa.h"
#include "common/storage.h"

namespace binaural::layers {

// v · scale + shift per channel, of which a batch norm's ReLU takes what is above 0.
struct Affine {
  const float *scale, *shift;  // [C]
};

// One or two rows of an image; `step` is the distance between pixels, in elements.
template <class S>
struct Rows {
  const S* data;
  int64_t step;
};

// So many pixels, side by side.
struct Block {
  int64_t height, width;
};

// Weights of the outputs that a bilinear interpolation makes of each input along one axis, and of
// the inputs that make each output: index `first`, then `count` ascending ones.
struct Taps {
  int64_t first, count;
  const float* weights;
};

// A 3 × 3 convolution of maps [B, H, W, C], padded by 1.
struct Convolution {
  int64_t batch, height, width, in_channels, out_channels;
};
// in_channels are a multiple of it: whole vectors of every instruction set.
constexpr int64_t kConvWeightChannels = 16;

// Channels of a map that a stem takes, at most.
constexpr int64_t kStemChannels = 2;

// S is how maps are stored; what is computed of their elements is computed in float.
template <class S>
struct Kernels {
  // Σ (x - shift) and Σ (x - shift)² over the pixels are added to sum and square, [C].
  void (*add_moments)(const S* x, int64_t pixels, int64_t channels, const float* shift, double* sum,
                      double* square);
  void (*normalise)(const S* x, int64_t pixels, int64_t channels, Affine, S* y);
  // Two rows of `width` pixels, y, which may be null, and one of width / 2, the largest of each 2
  // × 2.
  void (*normalise_pooled)(const S* x, int64_t width, int64_t channels, Affine, S* y, S* pooled);
  // Of dy (data may be null: zero) through the ReLU, g: Σ g and Σ g (x - mean) are added to sum and
  // product, [C].
  void (*add_gradients)(const S* x, Rows<S> dy, int64_t pixels, int64_t channels, Affine,
                        const float* mean, double* sum, double* product);
  // dx = scale · g + slope · x + offset.
  void (*differentiate)(const S* x, Rows<S> dy, int64_t pixels, int64_t channels, Affine,
                        const float* slope, const float* offset, S* dx);
  // The same of two rows of `width` pixels, with dpooled added to dy at the first largest of each
  // 2 × 2.
  void (*add_gradients_pooled)(const S* x, Rows<S> dy, const S* dpooled, int64_t width,
                               int64_t channels, Affine, const float* mean, double* sum,
                               double* product);
  void (*differentiate_pooled)(const S* x, Rows<S> dy, const S* dpooled, int64_t width,
                               int64_t channels, Affine, const float* slope, const float* offset,
                               S* dx);
  // to[pixel] = Σ taps of columns and of rows of from, with `step` elements between pixels of `to`.
  // from + r · row is where row r begins, from_step the distance of its pixels.
  void (*interpolate)(const S* from, int64_t row, int64_t from_step, const Taps& rows,
                      const Taps* columns, int64_t from_width, int64_t width, int64_t channels,
                      float* scratch, S* to, int64_t step);
  // The means of a row of `width` blocks, in rows `row` elements apart; and each of these rows of
  // the gradient.
  void (*average_pool)(const S* x, int64_t row, Block, int64_t width, int64_t channels, S* y);
  void (*spread_average)(Rows<S> dy, Block, int64_t width, int64_t channels, S* dx);
  // Over the channels of each pixel, with affine's scale and shift; `mean` and 1 / standard
  // deviation, `inverse`, are written by pixel.
  void (*layer_norm)(const S* x, int64_t pixels, int64_t channels, Affine, float eps, S* y,
                     float* mean, float* inverse);
  // What belongs to the weight and the bias is added to dweight and dbias, [C].
  void (*differentiate_layer_norm)(const S* x, Rows<S> dy, int64_t pixels, int64_t channels,
                                   const float* weight, const float* mean, const float* inverse,
                                   S* dx, float* dweight, float* dbias);
  // A row of what both ears contribute: left's first half of channels + right's second, and in the
  // mirror right's first + left's second.
  void (*add_mirrored)(const S* left, const S* right, int64_t width, int64_t channels, S* to);
  // The gradient of that.
  void (*part_mirrored)(const S* gradient, int64_t width, int64_t channels, S* left, S* right);
  void (*convert)(const float* from, int64_t count, S* to);
  // to = a + b
  void (*add)(const S* a, const S* b, int64_t count, float* to);
  // The gradient of a convolution's weights [out, 3, 3, in], of outputs `begin` to `end`.
  void (*conv_weight)(const S* x, const S* dy, const Convolution&, int64_t begin, int64_t end,
                      float* scratch, float* dweight);
  // How many numbers of scratch that needs for so many outputs; aligned to 64 bytes.
  int64_t (*conv_weight_scratch)(const Convolution&, int64_t outputs);
  // Patches of a map are p: 3 × 3 pixels and all channels, T = 9 in_channels numbers, 0 outside of
  // the map. What one of its rows adds to Σ p, [T], and to the upper triangle of Σ p pᵀ, [T, T], is
  // added to sums, in double; there are so many rows above and below it, `row` elements apart. What
  // is below the diagonal means nothing. Scratch holds 3 in_channels (width + 12) numbers.
  void (*add_patch_moments)(const float* rows, int64_t row, int64_t above, int64_t below,
                            int64_t width, int64_t in_channels, double* scratch, double* sums);
  // y = ReLU(scale weights p + shift) for a row of patches: of three rows of a map with a border of
  // zeros; weights are [T, C].
  void (*stem)(const float* rows, int64_t row, int64_t width, int64_t in_channels, int64_t channels,
               const float* weights, Affine, S* y);
  // Of dy through the ReLU, g: Σ g, [C], Σ g weights p, [C], and Σ g p, [T, C], are added to sums.
  void (*add_stem_gradients)(const float* rows, int64_t row, int64_t width, int64_t in_channels,
                             int64_t channels, const float* weights, Affine, Rows<S> dy,
                             double* sums);
};

struct KernelTables {
  Kernels<float> float32;
  Kernels<BFloat16> bfloat16;
};

BINAURAL_DECLARE_TABLES(KernelTables, avx512_bf16, kLayers)

}  // namespace binaural::layers
