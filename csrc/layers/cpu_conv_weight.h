// The gradient of the weights of a 3 × 3 convolution, padded by 1: for each tap a product of the
// output's gradient with the input, shifted. Compiled once per instruction set, see cpu_table.h.
#pragma once

#include "common/gemm.h"
#include "layers/cpu_kernel.h"

namespace binaural::layers::BINAURAL_ISA {

using namespace binaural::BINAURAL_ISA;

// The pixels of one matrix product, few enough for the caches: whole rows of an image, each
// followed by a pixel of zeros. This pixel pads the row on the right and the next one on the left,
// so that a shift by a tap is the same distance for all pixels.
struct ChunkOfRows {
  int64_t rows, pitch;  // pitch: pixels from one row to the next

  explicit ChunkOfRows(const Convolution& conv) : pitch(conv.width + 1) {
    constexpr int64_t kMostPixels = 320;
    const int64_t most = kMostPixels / pitch < 1 ? 1 : kMostPixels / pitch;
    // Chunks of nearly equal height, since each also reads the rows above and below it.
    const int64_t chunks = (conv.height + most - 1) / most;
    rows = (conv.height + chunks - 1) / chunks;
  }
  // With a row above and below, and a pixel in front.
  int64_t input_pixels() const { return (rows + 2) * pitch + 1; }
  int64_t gradient_pixels() const { return rows * pitch; }
};

inline int64_t conv_weight_scratch(const Convolution& conv, int64_t outputs) {
  const ChunkOfRows chunk(conv);
  return chunk.input_pixels() * kPanel<float> + chunk.gradient_pixels() * padded<float>(outputs);
}

// Copies channels of a row of pixels as floats, to + pixel · step; zeros if `from` is null.
template <class S>
inline void copy_row(const S* from, int64_t from_step, int64_t pixels, int64_t channels, float* to,
                     int64_t step) {
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    for (int64_t c = 0; c < channels; c += kLanes<float>) {
      Vec<float> v{};
      if (from != nullptr) {
        const S* at = from + pixel * from_step + c;
        v = channels - c >= kLanes<float> ? load_as<float>(at) : load_some<float>(at, channels - c);
      }
      store<float>(to + pixel * step + c, v);
    }
  }
}

// Adds a chunk's product to the sum of the chunks before it, or writes it if it is the first. Sums
// of chunks are added up, not pixels: the rounding error grows with the number of chunks.
struct AddChunk {
  float* to;
  int64_t stride;
  bool first;

  template <int kRows, int kVectors>
  BINAURAL_INLINE void begin(int64_t, int64_t, Vec<float> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>(
        [&](int i, int v) __attribute__((always_inline)) { acc[i][v] = Vec<float>{}; });
  }
  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<float> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      float* at = to + (row + i) * stride + column + v * kLanes<float>;
      store<float>(at, first ? acc[i][v] : load<float>(at) + acc[i][v]);
    });
  }
};

struct NothingBetween {
  BINAURAL_INLINE void operator()() const {}
};

template <class S>
void conv_weight(const S* x, const S* dy, const Convolution& conv, int64_t begin, int64_t end,
                 float* scratch, float* dweight) {
  const ChunkOfRows chunk(conv);
  const int64_t in = conv.in_channels, out = conv.out_channels, width = conv.width;
  const int64_t outputs = end - begin, step = padded<float>(outputs);
  float* input = scratch;  // one panel of it
  float* gradient = input + chunk.input_pixels() * kPanel<float>;
  for (int64_t image = 0; image < conv.batch; ++image) {
    for (int64_t first = 0; first < conv.height; first += chunk.rows) {
      const int64_t left = conv.height - first, rows = left < chunk.rows ? left : chunk.rows;
      const int64_t pixels = (rows + 2) * chunk.pitch + 1;
      const auto row_of = [&](const S* map, int64_t row, int64_t channels) {
        return row < 0 || row >= conv.height ? nullptr
                                             : map + (image * conv.height + row) * width * channels;
      };
      for (int64_t row = 0; row < rows; ++row) {
        float* to = gradient + row * chunk.pitch * step;
        copy_row<S>(row_of(dy, first + row, out) + begin, out, width, outputs, to, step);
        copy_row<S>(nullptr, 0, 1, outputs, to + width * step, step);
      }
      const bool is_first = image == 0 && first == 0;
      const NothingBetween nothing;
      for (int64_t column = 0; column < in; column += kPanel<float>) {
        const int64_t channels = in - column < kPanel<float> ? in - column : kPanel<float>;
        float* at = input;
        copy_row<S>(nullptr, 0, 1, channels, at, channels);
        at += channels;
        for (int64_t row = first - 1; row <= first + rows; ++row) {
          const S* from = row_of(x, row, in);
          copy_row<S>(from == nullptr ? nullptr : from + column, in, width, channels, at, channels);
          copy_row<S>(nullptr, 0, 1, channels, at + width * channels, channels);
          at += chunk.pitch * channels;
        }
        const Panels<float> panel{input, pixels};
        for (int64_t tap = 0; tap < 9; ++tap) {
          float* to = dweight + (begin * 9 + tap) * in + column;
          multiply<float, true>(gradient, step, outputs, panel, tap / 3 * chunk.pitch + tap % 3,
                                rows * chunk.pitch - 1, channels, AddChunk{to, 9 * in, is_first},
                                nothing);
        }
      }
    }
  }
}

}  // namespace binaural::layers::BINAURAL_ISA
