// The CPU operators of a stem: a 3 × 3 convolution of a map of one or two channels, batch norm and
// ReLU.
//
// Mean and variance of what the convolution gives are those of 3 × 3 patches of its input, weighed:
// w · E[p] and w · Cov[p] w. So its result is never written, only what the ReLU leaves of it; and
// all gradients follow from sums over what comes back through the ReLU, g. With
// a = (w · p - mean) / deviation, those of the norm are Σ g a and Σ g, and that of w is
//   scale (Σ g p - E[p] Σ g - E[a p] Σ g a), E[a p] = Cov[p] w / deviation.
#include <cmath>
#include <tuple>
#include <vector>

#include "common/memory.h"
#include "layers/maps.h"
#include "layers/sums.h"

namespace binaural::layers {
namespace {

// A map of few channels with a border of zeros, in memory [B, H + 2, W + 2, C], and the weights of
// its convolution [C_out, 3, 3, C].
struct Stem {
  Stem(const Tensor& padded, const Tensor& weight_, int64_t norms) {
    STD_TORCH_CHECK(padded.is_cpu() && padded.scalar_type() == ScalarType::Float &&
                        padded.is_contiguous() && padded.dim() == 4 && padded.size(0) > 0 &&
                        padded.size(1) > 2 && padded.size(2) > 2 && padded.size(3) > 0 &&
                        padded.size(3) <= kStemChannels,
                    "padded must be a contiguous float32 tensor [B, H + 2, W + 2, C] on the CPU, "
                    "not empty, with C of at most ",
                    kStemChannels);
    batch = padded.size(0), height = padded.size(1) - 2, width = padded.size(2) - 2;
    in_channels = padded.size(3), taps = 9 * in_channels;
    row = padded.size(2) * in_channels;
    data = data_of<const float>(padded);
    const Map<float> w(weight_, "weight");
    w.check_whole("weight");
    STD_TORCH_CHECK(w.channels == in_channels && w.height == 3 && w.width == 3 && w.batch == norms,
                    "weight must be [C_out, C, 3, 3] with padded's C and the norms' C_out");
    channels = norms;
    weight = w.data;
    part_count = std::min(kMostParts, batch * height);
  }

  // The three rows above, at and below a row of the whole batch.
  const float* rows(int64_t r) const {
    return data + (r / height * (height + 2) + r % height) * row;
  }

  // body(part, first row of the three, row) for every row; those of one part one after the other.
  template <class Body>
  void run(Body body) const {
    const int64_t all = batch * height;
    for_rows(part_count, all * width * channels / part_count, [&](int64_t part) {
      const int64_t past = (part + 1) * all / part_count;
      for (int64_t r = part * all / part_count; r < past; ++r) body(part, rows(r), r);
    });
  }

  int64_t pixels() const { return batch * height * width; }

  int64_t batch, height, width, in_channels, taps, row, channels, part_count;
  const float *data, *weight;
};

// E[p], [T], and Cov[p], [T, T], of all patches.
template <class S>
Tensor patch_moments(const Stem& stem, const Kernels<S>& kernels) {
  const int64_t taps = stem.taps, size = taps * (1 + taps);
  std::vector<double> sums(stem.part_count * size);
  stem.run([&](int64_t part, const float* rows, int64_t r) {
    const int64_t numbers = 3 * stem.in_channels * (stem.width + 12), above = r % stem.height;
    double* scratch = static_cast<double*>(thread_scratch(numbers * sizeof(double)));
    // From the border to the row's first pixel.
    kernels.add_patch_moments(rows + stem.row + stem.in_channels, stem.row, above,
                              stem.height - 1 - above, stem.width, stem.in_channels, scratch,
                              sums.data() + part * size);
  });
  add_parts(sums, stem.part_count);
  const double* sum = sums.data();
  Tensor moments = new_tensor({1 + taps, taps}, ScalarType::Double);
  double* mean = data_of<double>(moments);
  const double count = stem.pixels();
  for (int64_t t = 0; t < taps; ++t) mean[t] = sum[t] / count;
  for (int64_t t = 0; t < taps; ++t) {
    for (int64_t u = t; u < taps; ++u) {
      const double covariance = sum[(1 + t) * taps + u] / count - mean[t] * mean[u];
      mean[(1 + t) * taps + u] = mean[(1 + u) * taps + t] = covariance;
    }
  }
  return moments;
}

// What follows for each channel that comes out.
struct Normalisation {
  Normalisation(const Stem& stem, const double* moments, const float* norm_weight,
                const float* norm_bias, double eps)
      : mean(stem.channels),
        var(stem.channels),
        along(stem.channels * stem.taps),
        weights(stem.taps * stem.channels),
        scale(stem.channels),
        shift(stem.channels) {
    const int64_t taps = stem.taps;
    for (int64_t c = 0; c < stem.channels; ++c) {
      const float* w = stem.weight + c * taps;
      for (int64_t t = 0; t < taps; ++t) {
        double& weighed = along[c * taps + t];
        for (int64_t u = 0; u < taps; ++u) weighed += moments[(1 + t) * taps + u] * w[u];
        mean[c] += moments[t] * w[t];
        var[c] += weighed * w[t];
      }
      if (var[c] < 0) var[c] = 0;
      const double by = norm_weight[c] / std::sqrt(var[c] + eps);
      for (int64_t t = 0; t < taps; ++t) weights[t * stem.channels + c] = w[t];
      scale[c] = static_cast<float>(by);
      shift[c] = static_cast<float>(norm_bias[c] - mean[c] * by);
    }
  }
  Affine affine() const { return {scale.data(), shift.data()}; }

  std::vector<double> mean, var, along;      // [C], [C], and Cov[p] w, [C, T]
  std::vector<float> weights, scale, shift;  // [T, C], [C], [C]
};

template <class S>
std::tuple<Tensor, Tensor, Tensor, Tensor> forward(const Tensor& padded, const Tensor& weight,
                                                   const Tensor& norm_weight,
                                                   const Tensor& norm_bias, double eps) {
  const int64_t channels = norm_weight.numel();
  const Stem stem(padded, weight, channels);
  const Kernels<S>& run = kernels_for<S>();
  Tensor moments = patch_moments(stem, run);
  const Normalisation normalisation(stem, data_of<double>(moments),
                                    numbers_of(norm_weight, channels, "norm_weight"),
                                    numbers_of(norm_bias, channels, "norm_bias"), eps);
  Tensor mean = new_tensor({channels}, ScalarType::Float);
  Tensor var = new_tensor({channels}, ScalarType::Float);
  std::copy(normalisation.mean.begin(), normalisation.mean.end(), data_of(mean));
  std::copy(normalisation.var.begin(), normalisation.var.end(), data_of(var));
  Tensor y = new_map<S>(stem.batch, stem.height, stem.width, channels);
  stem.run([&](int64_t, const float* rows, int64_t r) {
    run.stem(rows, stem.row, stem.width, stem.in_channels, channels, normalisation.weights.data(),
             normalisation.affine(), data_of<S>(y) + r * stem.width * channels);
  });
  return {y, mean, var, moments};
}

template <class S>
std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& dy_, const Tensor& padded,
                                            const Tensor& weight, const Tensor& norm_weight,
                                            const Tensor& norm_bias, const Tensor& moments,
                                            double eps) {
  const int64_t channels = norm_weight.numel();
  const Stem stem(padded, weight, channels);
  const int64_t taps = stem.taps, size = (2 + taps) * channels;
  const Map<S> dy(dy_, "dy");
  STD_TORCH_CHECK(dy.batch == stem.batch && dy.height == stem.height && dy.width == stem.width &&
                      dy.channels == channels,
                  "dy must have the shape of what comes out");
  STD_TORCH_CHECK(moments.is_cpu() && moments.scalar_type() == ScalarType::Double &&
                      moments.is_contiguous() && moments.numel() == taps * (1 + taps),
                  "moments must be those of the forward pass");
  const double* patch_mean = data_of<const double>(moments);
  const Normalisation normalisation(stem, patch_mean,
                                    numbers_of(norm_weight, channels, "norm_weight"),
                                    numbers_of(norm_bias, channels, "norm_bias"), eps);
  const Kernels<S>& run = kernels_for<S>();
  std::vector<double> sums(stem.part_count * size);
  stem.run([&](int64_t part, const float* rows, int64_t r) {
    run.add_stem_gradients(rows, stem.row, stem.width, stem.in_channels, channels,
                           normalisation.weights.data(), normalisation.affine(),
                           {dy.data + r * stem.width * dy.step, dy.step},
                           sums.data() + part * size);
  });
  add_parts(sums, stem.part_count);
  const double *sum = sums.data(), *product = sum + channels, *products = product + channels;
  Tensor dweight = new_tensor({channels, 3, 3, stem.in_channels}, ScalarType::Float);
  Tensor dnorm_weight = new_tensor({channels}, ScalarType::Float);
  Tensor dnorm_bias = new_tensor({channels}, ScalarType::Float);
  for (int64_t c = 0; c < channels; ++c) {
    const double inverse = 1 / std::sqrt(normalisation.var[c] + eps);
    const double of_norm = inverse * (product[c] - normalisation.mean[c] * sum[c]);
    for (int64_t t = 0; t < taps; ++t) {
      const double gradient = products[t * channels + c] - sum[c] * patch_mean[t] -
                              of_norm * inverse * normalisation.along[c * taps + t];
      data_of(dweight)[c * taps + t] =
          static_cast<float>(data_of(norm_weight)[c] * inverse * gradient);
    }
    data_of(dnorm_weight)[c] = static_cast<float>(of_norm);
    data_of(dnorm_bias)[c] = static_cast<float>(sum[c]);
  }
  return {dweight, dnorm_weight, dnorm_bias};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> stem_forward(Tensor padded, Tensor weight,
                                                        Tensor norm_weight, Tensor norm_bias,
                                                        double eps, ScalarType dtype) {
  STD_TORCH_CHECK(dtype == ScalarType::BFloat16 || dtype == ScalarType::Float,
                  "dtype must be float32 or bfloat16");
  if (dtype == ScalarType::BFloat16) {
    return forward<BFloat16>(padded, weight, norm_weight, norm_bias, eps);
  }
  return forward<float>(padded, weight, norm_weight, norm_bias, eps);
}

std::tuple<Tensor, Tensor, Tensor> stem_backward(Tensor dy, Tensor padded, Tensor weight,
                                                 Tensor norm_weight, Tensor norm_bias,
                                                 Tensor moments, double eps) {
  return with_storage(dy, [&](auto stored) {
    return backward<decltype(stored)>(dy, padded, weight, norm_weight, norm_bias, moments, eps);
  });
}

}  // namespace
}  // namespace binaural::layers

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("stem_forward", TORCH_BOX(&binaural::layers::stem_forward));
  m.impl("stem_backward", TORCH_BOX(&binaural::layers::stem_backward));
}
