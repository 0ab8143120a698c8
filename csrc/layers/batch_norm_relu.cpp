// The CPU operators of batch norm, ReLU and max-pooling: they check the tensors, allocate the
// results and distribute the work over threads.
#include <cmath>
#include <optional>
#include <tuple>
#include <vector>

#include "layers/maps.h"
#include "layers/sums.h"

namespace binaural::layers {
namespace {

using MaybeTensor = std::optional<Tensor>;

// The unit of work is a pair of rows, which max-pooling reduces to one; parts are runs of pairs.
template <class S>
struct Parts {
  explicit Parts(const Map<S>& map) : map(map), per_image((map.height + 1) / 2) {
    pairs = map.batch * per_image;
    count = std::min(kMostParts, pairs);
    grain = grain_of(map.pixels() * map.channels / count);
  }

  // Calls body(part, pair) for all pairs; those of one part one after the other, in order or in
  // reverse. A reverse pass after a forward one finds the last pairs still in the cache.
  template <class Body>
  void run(bool reverse, Body body) const {
    torch::stable::parallel_for(0, count, grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const int64_t part = reverse ? begin + end - 1 - i : i;
        const int64_t first = part * pairs / count, past = (part + 1) * pairs / count;
        for (int64_t j = first; j < past; ++j) body(part, reverse ? first + past - 1 - j : j);
      }
    });
  }

  int64_t first_row(int64_t pair) const { return pair % per_image * 2; }
  // Rows of the pair: 1 for the last of an image of odd height.
  int64_t rows(int64_t pair) const { return std::min<int64_t>(2, map.height - first_row(pair)); }
  // Index of the pair's first pixel, counted over the batch.
  int64_t pixel(int64_t pair) const {
    return (pair / per_image * map.height + first_row(pair)) * map.width;
  }
  // Index of the first pixel of its pooled row, counted over the pooled batch.
  int64_t pooled(int64_t pair) const {
    return (pair / per_image * (map.height / 2) + pair % per_image) * (map.width / 2);
  }

  const Map<S>& map;
  int64_t per_image, pairs, count, grain;
};

// One value per channel from one per norm: channels c, c + norms, ... share the c-th norm.
template <class T>
std::vector<T> repeat(const T* values, int64_t norms, int64_t channels) {
  std::vector<T> repeated(channels);
  for (int64_t c = 0; c < channels; ++c) repeated[c] = values[c % norms];
  return repeated;
}

void check_channels(const Tensor& tensor, int64_t norms, int64_t channels) {
  STD_TORCH_CHECK(norms > 0 && channels % norms == 0,
                  "there must be as many norms as channels, or a divisor of them");
  numbers_of(tensor, norms, "weight, bias, mean and var");
}

// Batch norm as y = x · scale + shift per channel.
struct Normalisation {
  Normalisation(const Tensor& weight, const Tensor& bias, const Tensor& mean, const Tensor& var,
                double eps, int64_t channels)
      : scale(channels), shift(channels) {
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t norm = c % weight.numel();
      const double s = data_of(weight)[norm] / std::sqrt(data_of(var)[norm] + eps);
      scale[c] = static_cast<float>(s);
      shift[c] = static_cast<float>(data_of(bias)[norm] - data_of(mean)[norm] * s);
    }
  }
  Affine affine() const { return {scale.data(), shift.data()}; }
  std::vector<float> scale, shift;
};

// The mean of each norm over some pixels spread over the map: close enough to the mean of all that
// the variance does not cancel when computed from sums around it.
template <class S>
std::vector<float> guess_mean(const Kernels<S>& run, const Map<S>& x, int64_t norms) {
  constexpr int64_t kSamples = 16;
  const std::vector<float> zero(x.channels);
  Sums sums(1, x.channels);
  for (int64_t i = 0; i < kSamples; ++i) {
    run.add_moments(x.data + i * x.pixels() / kSamples * x.channels, 1, x.channels, zero.data(),
                    sums.first(0), sums.second(0));
  }
  sums.combine(norms);
  std::vector<float> mean(norms);
  for (int64_t c = 0; c < norms; ++c) {
    mean[c] = static_cast<float>(sums.first(0)[c] / (kSamples * (x.channels / norms)));
  }
  return repeat(mean.data(), norms, x.channels);
}

template <class S>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& x_, const Tensor& weight,
                                                   const Tensor& bias, double eps, bool pool,
                                                   bool keep) {
  const Map<S> x(x_, "x");
  x.check_whole("x");
  STD_TORCH_CHECK(pool || keep, "keep or pool must be true");
  const int64_t channels = x.channels, norms = weight.numel();
  check_channels(weight, norms, channels);
  check_channels(bias, norms, channels);
  const int64_t values = x.pixels() * (channels / norms);  // that share a norm
  const Kernels<S>& run = kernels_for<S>();
  const Parts<S> parts(x);

  const std::vector<float> origin = guess_mean(run, x, norms);
  Sums sums(parts.count, channels);
  parts.run(false, [&](int64_t part, int64_t pair) {
    run.add_moments(x.data + parts.pixel(pair) * channels, parts.rows(pair) * x.width, channels,
                    origin.data(), sums.first(part), sums.second(part));
  });
  sums.combine(norms);
  Tensor mean = new_tensor({norms}, ScalarType::Float);
  Tensor var = new_tensor({norms}, ScalarType::Float);
  for (int64_t c = 0; c < norms; ++c) {
    const double offset = sums.first(0)[c] / values;
    data_of(mean)[c] = static_cast<float>(origin[c] + offset);
    const double around = sums.second(0)[c] / values - offset * offset;
    data_of(var)[c] = static_cast<float>(around < 0 ? 0 : around);
  }

  const Normalisation normalisation(weight, bias, mean, var, eps, channels);
  Tensor y = new_map<S>(x.batch, x.height, x.width, keep ? channels : 0);
  Tensor pooled = pool ? new_map<S>(x.batch, x.height / 2, x.width / 2, channels)
                       : new_map<S>(0, 0, 0, channels);
  const Affine affine = normalisation.affine();
  parts.run(true, [&](int64_t, int64_t pair) {
    const int64_t offset = parts.pixel(pair) * channels;
    S* rows = keep ? data_of<S>(y) + offset : nullptr;
    if (pool && parts.rows(pair) == 2) {
      run.normalise_pooled(x.data + offset, x.width, channels, affine, rows,
                           data_of<S>(pooled) + parts.pooled(pair) * channels);
    } else if (keep) {
      run.normalise(x.data + offset, parts.rows(pair) * x.width, channels, affine, rows);
    }
  });
  return {y, pooled, mean, var};
}

template <class S>
std::tuple<Tensor, Tensor, Tensor> backward(const MaybeTensor& dy_, const MaybeTensor& dpooled_,
                                            const Tensor& x_, const Tensor& weight,
                                            const Tensor& bias, const Tensor& mean,
                                            const Tensor& var, double eps) {
  const Map<S> x(x_, "x");
  x.check_whole("x");
  const int64_t channels = x.channels, norms = weight.numel();
  for (const Tensor& tensor : {weight, bias, mean, var}) check_channels(tensor, norms, channels);
  const int64_t values = x.pixels() * (channels / norms);  // that share a norm
  std::optional<Map<S>> dy, dpooled;
  if (dy_.has_value()) {
    dy.emplace(*dy_, "dy");
    STD_TORCH_CHECK(dy->pixels() == x.pixels() && dy->channels == channels,
                    "dy must have x's shape");
  }
  if (dpooled_.has_value()) {
    dpooled.emplace(*dpooled_, "dpooled");
    STD_TORCH_CHECK(dpooled->dense() && dpooled->batch == x.batch &&
                        dpooled->height == x.height / 2 && dpooled->width == x.width / 2 &&
                        dpooled->channels == channels,
                    "dpooled must be dense and have half of x's height and width");
  }
  STD_TORCH_CHECK(dy || dpooled, "one gradient must be given");
  const Kernels<S>& run = kernels_for<S>();
  const Parts<S> parts(x);
  const Normalisation normalisation(weight, bias, mean, var, eps, channels);
  const Affine affine = normalisation.affine();

  // The gradient dy of a pair of rows, without that of its pooled row.
  auto gradient = [&](int64_t pair) -> Rows<S> {
    return dy ? Rows<S>{dy->data + parts.pixel(pair) * dy->step, dy->step} : Rows<S>{nullptr, 0};
  };
  auto has_pooled = [&](int64_t pair) { return dpooled && parts.rows(pair) == 2; };

  const std::vector<float> means = repeat(data_of(mean), norms, channels);
  Sums sums(parts.count, channels);
  parts.run(false, [&](int64_t part, int64_t pair) {
    const S* rows = x.data + parts.pixel(pair) * channels;
    double *sum = sums.first(part), *product = sums.second(part);
    if (has_pooled(pair)) {
      run.add_gradients_pooled(rows, gradient(pair), dpooled->data + parts.pooled(pair) * channels,
                               x.width, channels, affine, means.data(), sum, product);
    } else {
      run.add_gradients(rows, gradient(pair), parts.rows(pair) * x.width, channels, affine,
                        means.data(), sum, product);
    }
  });
  sums.combine(norms);
  Tensor dweight = new_tensor({norms}, ScalarType::Float);
  Tensor dbias = new_tensor({norms}, ScalarType::Float);
  std::vector<float> slopes(norms), offsets(norms);
  for (int64_t c = 0; c < norms; ++c) {
    const double inverse = 1 / std::sqrt(data_of(var)[c] + eps);
    const double scale = data_of(weight)[c] * inverse;
    const double along = -scale * inverse * inverse * sums.second(0)[c] / values;
    data_of(dweight)[c] = static_cast<float>(sums.second(0)[c] * inverse);
    data_of(dbias)[c] = static_cast<float>(sums.first(0)[c]);
    slopes[c] = static_cast<float>(along);
    offsets[c] = static_cast<float>(-scale * sums.first(0)[c] / values - along * data_of(mean)[c]);
  }
  const std::vector<float> slope = repeat(slopes.data(), norms, channels);
  const std::vector<float> offset = repeat(offsets.data(), norms, channels);

  Tensor dx = new_map<S>(x.batch, x.height, x.width, channels);
  parts.run(true, [&](int64_t, int64_t pair) {
    const int64_t begin = parts.pixel(pair) * channels;
    S* rows = data_of<S>(dx) + begin;
    if (has_pooled(pair)) {
      run.differentiate_pooled(x.data + begin, gradient(pair),
                               dpooled->data + parts.pooled(pair) * channels, x.width, channels,
                               affine, slope.data(), offset.data(), rows);
    } else {
      run.differentiate(x.data + begin, gradient(pair), parts.rows(pair) * x.width, channels,
                        affine, slope.data(), offset.data(), rows);
    }
  });
  return {dx, dweight, dbias};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> batch_norm_relu_forward(Tensor x, Tensor weight,
                                                                   Tensor bias, double eps,
                                                                   bool pool, bool keep) {
  return with_storage(
      x, [&](auto stored) { return forward<decltype(stored)>(x, weight, bias, eps, pool, keep); });
}

std::tuple<Tensor, Tensor, Tensor> batch_norm_relu_backward(MaybeTensor dy, MaybeTensor dpooled,
                                                            Tensor x, Tensor weight, Tensor bias,
                                                            Tensor mean, Tensor var, double eps) {
  return with_storage(x, [&](auto stored) {
    return backward<decltype(stored)>(dy, dpooled, x, weight, bias, mean, var, eps);
  });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("batch_norm_relu_forward", TORCH_BOX(&binaural::layers::batch_norm_relu_forward));
  m.impl("batch_norm_relu_backward", TORCH_BOX(&binaural::layers::batch_norm_relu_backward));
}
