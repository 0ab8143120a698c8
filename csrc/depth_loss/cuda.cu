// The CUDA operators: what they accept and what they allocate.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <limits>
#include <tuple>
#include <vector>

#include "common/cuda_dtype.cuh"
#include "depth_loss/cuda_kernel.cuh"

namespace binaural::depth_loss::gpu {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class T>
Images<T> images_of(const Tensor& tensor) {  // [B, 1, H, W] or [B, H, W]
  const int64_t last = tensor.dim() - 1;
  return {static_cast<const T*>(tensor.data_ptr()),
          {tensor.stride(0), tensor.stride(last - 1), tensor.stride(last)}};
}

float* floats(const Tensor& tensor) { return static_cast<float*>(tensor.data_ptr()); }

void check_floats(const char* name, const Tensor& tensor, const Tensor& like, int64_t count) {
  STD_TORCH_CHECK(tensor.is_cuda() && tensor.get_device_index() == like.get_device_index() &&
                      tensor.scalar_type() == ScalarType::Float && tensor.numel() == count &&
                      tensor.is_contiguous(),
                  name, " must be ", count, " contiguous float32 on pred's device");
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(Tensor pred, Tensor target, Tensor weights,
                                                   bool with_gradient) {
  const int64_t dim = pred.dim();
  STD_TORCH_CHECK(dim == 3 || (dim == 4 && pred.size(1) == 1),
                  "pred must be [B, 1, H, W] or [B, H, W]");
  STD_TORCH_CHECK(pred.numel() > 0, "pred must not be empty");
  STD_TORCH_CHECK(target.is_cuda() && target.get_device_index() == pred.get_device_index(),
                  "target must be on pred's device");
  STD_TORCH_CHECK(target.dim() == dim, "target must have pred's shape");
  for (int64_t i = 0; i < dim; ++i) {
    STD_TORCH_CHECK(target.size(i) == pred.size(i), "target must have pred's shape");
  }
  const ScalarType dtype = pred.scalar_type();
  STD_TORCH_CHECK(target.scalar_type() == dtype || target.scalar_type() == ScalarType::Float,
                  "target must have pred's dtype, or float32");
  check_floats("weights", weights, pred, 3);
  const int64_t images = pred.size(0), height = pred.size(-2), width = pred.size(-1);
  constexpr int64_t kLongest = std::numeric_limits<int>::max() - kDepths;
  STD_TORCH_CHECK(height <= kLongest && width <= kLongest, "an image is too large for CUDA");
  const Size size = size_of(height, width);
  const int64_t blocks = block_count(images, size);
  STD_TORCH_CHECK(blocks <= std::numeric_limits<int>::max(), "a batch is too large for CUDA");

  const torch::stable::accelerator::DeviceGuard guard(pred.get_device_index());
  const auto empty = [&](std::vector<int64_t> shape) {
    return torch::stable::new_empty(pred, shape, ScalarType::Float);
  };
  const Tensor total = empty({}), terms = empty({3}), scales = empty({2});
  const Tensor partial = empty({kSums, blocks});
  const Tensor coded = with_gradient ? empty({images, height, width}) : empty({0});
  const auto run = [&](auto p, auto t) {
    launch_forward(images_of<decltype(p)>(pred), images_of<decltype(t)>(target), images, size,
                   floats(weights), with_gradient ? floats(coded) : nullptr, floats(partial),
                   floats(total), floats(terms), floats(scales),
                   current_stream(pred.get_device_index()));
  };
  with_type(dtype, [&](auto p) {
    if (target.scalar_type() == dtype) {
      run(p, p);
    } else {
      run(p, float{});
    }
  });
  return {total, terms, coded, scales};
}

Tensor backward(Tensor grad_total, Tensor coded, Tensor scales, Tensor pred) {
  check_floats("grad_total", grad_total, pred, 1);
  check_floats("coded", coded, pred, pred.numel());
  check_floats("scales", scales, pred, 2);
  const torch::stable::accelerator::DeviceGuard guard(pred.get_device_index());
  std::vector<int64_t> shape;
  for (int64_t i = 0; i < pred.dim(); ++i) shape.push_back(pred.size(i));
  const Tensor grad_pred = torch::stable::new_empty(pred, shape, pred.scalar_type());
  with_type(pred.scalar_type(), [&](auto type) {
    launch_backward(floats(grad_total), floats(coded), floats(scales),
                    static_cast<decltype(type)*>(grad_pred.data_ptr()), pred.numel(),
                    current_stream(pred.get_device_index()));
  });
  return grad_pred;
}

}  // namespace
}  // namespace binaural::depth_loss::gpu

STABLE_TORCH_LIBRARY_IMPL(binaural, CUDA, m) {
  m.impl("edge_aware_loss_forward", TORCH_BOX(&binaural::depth_loss::gpu::forward));
  m.impl("edge_aware_loss_backward", TORCH_BOX(&binaural::depth_loss::gpu::backward));
}
