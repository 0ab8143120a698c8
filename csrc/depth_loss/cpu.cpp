// The CPU operators: checks of the arguments, allocation, and how threads share the work.
#include <algorithm>
#include <tuple>
#include <vector>

#include "common/results.h"
#include "depth_loss/cpu_kernel.h"

namespace binaural::depth_loss {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

const Kernels& kernels(ScalarType wide) {
  return wide == ScalarType::Double ? best_kernels().float64 : best_kernels().float32;
}

ScalarType compute_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? dtype : ScalarType::Float;
}

Storage storage_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
    case ScalarType::Double:
      return Storage::kWide;
    case ScalarType::BFloat16:
      return Storage::kBFloat16;
    case ScalarType::Half:
      return Storage::kFloat16;
    default:
      STD_TORCH_CHECK(false, "edge_aware_loss takes float32, float64, bfloat16 and float16");
  }
}

// [B, 1, H, W] or [B, H, W], of any strides.
Images images_of(const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1;
  return {tensor.data_ptr(),
          storage_of(tensor.scalar_type()),
          {tensor.stride(0), tensor.stride(last - 1), tensor.stride(last)}};
}

// A double from a float or double tensor.
double value_of(const Tensor& tensor, int64_t index) {
  return tensor.scalar_type() == ScalarType::Double
             ? static_cast<const double*>(tensor.data_ptr())[index]
             : static_cast<const float*>(tensor.data_ptr())[index];
}

void set_value(Tensor& tensor, int64_t index, double value) {
  if (tensor.scalar_type() == ScalarType::Double) {
    static_cast<double*>(tensor.data_ptr())[index] = value;
  } else {
    static_cast<float*>(tensor.data_ptr())[index] = static_cast<float>(value);
  }
}

// An image is cut into bands of rows that depend on the shape alone: the sums are then the same
// bits whatever the number of threads.
struct Bands {
  Bands(int64_t images, int64_t height, int64_t width) : height(height) {
    constexpr int64_t kPixels = 1 << 16, kFewest = 16, kRows = 16;
    int64_t per_image = (height * width + kPixels - 1) / kPixels;
    if (images * per_image < kFewest) per_image = (kFewest + images - 1) / images;
    rows = std::max(kRows, (height + per_image - 1) / per_image);
    per = (height + rows - 1) / rows;
    count = images * per;
    // Minimum grain size: smaller tasks cost more to schedule than to run.
    constexpr int64_t kGrain = 1 << 13;
    grain = std::max<int64_t>(1, kGrain / (std::min(rows, height) * width));
  }
  int64_t first(int64_t band) const { return band % per * rows; }
  int64_t end(int64_t band) const { return std::min(height, first(band) + rows); }
  int64_t height, rows, per, count, grain;
};

void check_inputs(const Tensor& pred, const Tensor& target, const Tensor& weights) {
  const int64_t dim = pred.dim();
  STD_TORCH_CHECK(dim == 3 || (dim == 4 && pred.size(1) == 1),
                  "pred must be [B, 1, H, W] or [B, H, W]");
  STD_TORCH_CHECK(pred.numel() > 0, "pred must not be empty");
  STD_TORCH_CHECK(target.is_cpu() && weights.is_cpu(), "target and weights must be on the CPU");
  STD_TORCH_CHECK(target.dim() == dim, "target must have pred's shape");
  for (int64_t i = 0; i < dim; ++i) {
    STD_TORCH_CHECK(target.size(i) == pred.size(i), "target must have pred's shape");
  }
  const ScalarType wide = compute_type(pred.scalar_type());
  STD_TORCH_CHECK(target.scalar_type() == pred.scalar_type() || target.scalar_type() == wide,
                  "target must have pred's dtype, or float32");
  STD_TORCH_CHECK(weights.scalar_type() == wide && weights.dim() == 1 && weights.size(0) == 3 &&
                      weights.is_contiguous(),
                  "weights must be [3], float64 for a float64 pred and else float32");
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(Tensor pred, Tensor target, Tensor weights,
                                                   bool with_gradient) {
  check_inputs(pred, target, weights);
  const ScalarType wide = compute_type(pred.scalar_type());
  const int64_t images = pred.size(0), height = pred.size(-2), width = pred.size(-1);
  const std::vector<int64_t> none{0}, shape{images, height, width};
  Tensor total = new_tensor({}, wide);
  Tensor terms = new_tensor({3}, wide);
  Tensor scales = new_tensor({2}, wide);
  Tensor coded = new_result(with_gradient ? shape : none, wide);

  const double lambdas[3] = {value_of(weights, 0), value_of(weights, 1), value_of(weights, 2)};
  const Call call{images_of(pred),
                  images_of(target),
                  height,
                  width,
                  lambdas[1],
                  lambdas[2],
                  with_gradient ? coded.data_ptr() : nullptr};
  const Kernels& run = kernels(wide);
  const Bands bands(images, height, width);
  std::vector<LossSums> sums(bands.count);
  torch::stable::parallel_for(0, bands.count, bands.grain, [&](int64_t begin, int64_t end) {
    void* scratch = thread_scratch(run.scratch_bytes(call));
    for (int64_t band = begin; band < end; ++band) {
      sums[band] = run.sweep(call, band / bands.per, bands.first(band), bands.end(band), scratch);
    }
  });

  LossSums all{};
  for (const LossSums& band : sums) {
    all.recon += band.recon;
    all.edge += band.edge;
    all.smooth += band.smooth;
    all.valid += band.valid;
    all.inner += band.inner;
  }
  // An empty sum is 0, and dividing it by 1 keeps it.
  const double per_valid = 1.0 / std::max<int64_t>(1, all.valid);
  const double per_inner = 1.0 / std::max<int64_t>(1, all.inner);
  const double values[3] = {all.recon * per_valid, all.edge * per_inner, all.smooth * per_inner};
  double sum = 0;
  for (int i = 0; i < 3; ++i) {
    set_value(terms, i, values[i]);
    sum += lambdas[i] * values[i];
  }
  set_value(total, 0, sum);
  set_value(scales, 0, lambdas[0] * per_valid);
  set_value(scales, 1, per_inner);
  return {total, terms, coded, scales};
}

Tensor backward(Tensor grad_total, Tensor coded, Tensor scales, Tensor pred) {
  const ScalarType dtype = pred.scalar_type(), wide = compute_type(dtype);
  STD_TORCH_CHECK(
      grad_total.is_cpu() && grad_total.numel() == 1 && grad_total.scalar_type() == wide,
      "grad_total must be a scalar, float64 for a float64 pred and else float32");
  STD_TORCH_CHECK(coded.is_cpu() && coded.is_contiguous() && coded.numel() == pred.numel() &&
                      coded.scalar_type() == wide && scales.is_cpu() && scales.numel() == 2 &&
                      scales.scalar_type() == wide,
                  "coded and scales must be what edge_aware_loss_forward returned with a gradient");
  std::vector<int64_t> shape;
  for (int64_t i = 0; i < pred.dim(); ++i) shape.push_back(pred.size(i));
  Tensor grad_pred = new_result(shape, dtype);
  const double upstream = value_of(grad_total, 0);
  const double recon_scale = upstream * value_of(scales, 0);
  const double edge_scale = upstream * value_of(scales, 1);
  const Kernels& run = kernels(wide);
  const Storage storage = storage_of(dtype);
  const char* from = static_cast<const char*>(coded.data_ptr());
  char* to = static_cast<char*>(grad_pred.data_ptr());
  const int64_t from_size = coded.element_size(), to_size = grad_pred.element_size();
  const bool streamed = grad_pred.numel() * to_size >= kStreamed;
  torch::stable::parallel_for(0, coded.numel(), 1 << 15, [&](int64_t begin, int64_t end) {
    run.decode(from + begin * from_size, end - begin, recon_scale, edge_scale, to + begin * to_size,
               storage, streamed);
  });
  return grad_pred;
}

}  // namespace
}  // namespace binaural::depth_loss

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("edge_aware_loss_forward", TORCH_BOX(&binaural::depth_loss::forward));
  m.impl("edge_aware_loss_backward", TORCH_BOX(&binaural::depth_loss::backward));
}
