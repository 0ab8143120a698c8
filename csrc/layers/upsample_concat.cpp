// The CPU operators of bilinear upsampling into a concatenation.
#include <tuple>

#include "common/memory.h"
#include "layers/maps.h"

namespace binaural::layers {

namespace {

// The taps of all outputs along one axis or, transposed, of all inputs.
struct Axis {
  // Bilinear, as F.interpolate(align_corners=False): output o is the input at (o + ½) · from / to -
  // ½, clamped to the first and the last.
  Axis(int64_t from, int64_t to) : taps(to), weights(2 * to) {
    const double scale = static_cast<double>(from) / to;
    for (int64_t o = 0; o < to; ++o) {
      const double at = std::max(0.0, (o + 0.5) * scale - 0.5);
      const int64_t first = std::min(static_cast<int64_t>(at), from - 1);
      const double second = first + 1 < from ? at - first : 0;
      weights[2 * o] = static_cast<float>(1 - second);
      weights[2 * o + 1] = static_cast<float>(second);
      taps[o] = {first, second > 0 ? 2 : 1, &weights[2 * o]};
    }
  }

  // For the gradient: the outputs that each of `from` inputs contributes to. They are adjacent.
  static Axis transposed(int64_t from, int64_t to) {
    const Axis forward(from, to);
    Axis axis;
    axis.taps.resize(from);
    axis.weights.reserve(2 * to + from);
    for (int64_t i = 0, first = 0; i < from; ++i) {
      while (first < to - 1 && reach(forward.taps[first]) <= i) ++first;
      const size_t begin = axis.weights.size();
      for (int64_t o = first; o < to && forward.taps[o].first <= i; ++o) {
        const int64_t tap = i - forward.taps[o].first;
        axis.weights.push_back(tap < forward.taps[o].count ? forward.taps[o].weights[tap] : 0);
      }
      // An input that contributes to no output gets one tap of weight 0.
      if (axis.weights.size() == begin) axis.weights.push_back(0);
      axis.taps[i] = {first, static_cast<int64_t>(axis.weights.size() - begin),
                      axis.weights.data() + begin};
    }
    return axis;
  }

  std::vector<Taps> taps;
  std::vector<float> weights;

 private:
  Axis() = default;
  static int64_t reach(const Taps& taps) { return taps.first + taps.count; }
};

template <class S>
Tensor forward(const Tensor& skip_, const Tensor& below_) {
  const Map<S> skip(skip_, "skip"), below(below_, "below");
  STD_TORCH_CHECK(skip.batch == below.batch && below.pixels() > 0,
                  "skip and below must be of the same batch, and below not empty");
  const int64_t channels = skip.channels + below.channels;
  const Axis rows(below.height, skip.height), columns(below.width, skip.width);
  Tensor joined = new_map<S>(skip.batch, skip.height, skip.width, channels);
  S* to = data_of<S>(joined);
  const Kernels<S>& run = kernels_for<S>();
  torch::stable::parallel_for(
      0, skip.batch * skip.height, grain_of(skip.width * channels),
      [&](int64_t begin, int64_t end) {
        float* scratch =
            static_cast<float*>(thread_scratch(below.width * below.channels * sizeof(float)));
        for (int64_t row = begin; row < end; ++row) {
          const int64_t image = row / skip.height;
          S* pixels = to + row * skip.width * channels;
          const S* kept = skip.data + row * skip.width * skip.step;
          for (int64_t i = 0; i < skip.width; ++i) {
            std::copy_n(kept + i * skip.step, skip.channels, pixels + i * channels);
          }
          run.interpolate(below.data + image * below.height * below.width * below.step,
                          below.width * below.step, below.step, rows.taps[row % skip.height],
                          columns.taps.data(), below.width, skip.width, below.channels, scratch,
                          pixels + skip.channels, channels);
        }
      });
  return joined;
}

template <class S>
Tensor backward(const Tensor& upsampled_gradient, int64_t height, int64_t width) {
  const Map<S> g(upsampled_gradient, "the gradient");
  STD_TORCH_CHECK(g.pixels() > 0 && height > 0 && width > 0, "maps must not be empty");
  const Axis rows = Axis::transposed(height, g.height), columns = Axis::transposed(width, g.width);
  Tensor dbelow = new_map<S>(g.batch, height, width, g.channels);
  S* to = data_of<S>(dbelow);
  const Kernels<S>& run = kernels_for<S>();
  torch::stable::parallel_for(
      0, g.batch * height, grain_of(g.width * g.channels), [&](int64_t begin, int64_t end) {
        float* scratch = static_cast<float*>(thread_scratch(g.width * g.channels * sizeof(float)));
        for (int64_t row = begin; row < end; ++row) {
          run.interpolate(g.data + row / height * g.height * g.width * g.step, g.width * g.step,
                          g.step, rows.taps[row % height], columns.taps.data(), g.width, width,
                          g.channels, scratch, to + row * width * g.channels, g.channels);
        }
      });
  return dbelow;
}

Tensor upsample_concat_forward(Tensor skip, Tensor below) {
  return with_storage(skip, [&](auto stored) { return forward<decltype(stored)>(skip, below); });
}

Tensor upsample_concat_backward(Tensor gradient, int64_t height, int64_t width) {
  return with_storage(
      gradient, [&](auto stored) { return backward<decltype(stored)>(gradient, height, width); });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("upsample_concat_forward", TORCH_BOX(&binaural::layers::upsample_concat_forward));
  m.impl("upsample_concat_backward", TORCH_BOX(&binaural::layers::upsample_concat_backward));
}
