// The CUDA operators: what they accept and what they allocate.
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "common/cuda_dtype.cuh"
#include "common/cuda_launch.cuh"
#include "cross_attention/cuda_plan.h"

namespace binaural::cross_attention::gpu {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

// [R, time, heads, channels] as the kernels read it: a copy is only made where the channels are not
// contiguous.
class Input {
 public:
  Input(const char* name, const Tensor& tensor, const Tensor& like, int64_t time, int64_t channels)
      : tensor_(tensor) {
    STD_TORCH_CHECK(tensor.is_cuda() && tensor.get_device_index() == like.get_device_index(), name,
                    " must be on q_left's device");
    STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), name, " must have q_left's dtype");
    STD_TORCH_CHECK(tensor.dim() == 4 && tensor.size(0) == like.size(0) && tensor.size(1) == time &&
                        tensor.size(2) == like.size(2) && tensor.size(3) == channels,
                    name, " does not fit q_left");
    if (tensor.size(3) > 1 && tensor.stride(3) != 1) tensor_ = torch::stable::contiguous(tensor);
  }

  View view() const {
    return make_view(tensor_.data_ptr(), tensor_.stride(0), tensor_.stride(1), tensor_.stride(2),
                     tensor_.size(3), tensor_.element_size());
  }

 private:
  Tensor tensor_;
};

Tensor new_like(const Tensor& like) {
  return torch::stable::new_empty(like, {like.size(0), like.size(1), like.size(2), like.size(3)});
}

Tensor new_floats(const Tensor& like, std::vector<int64_t> sizes) {
  return torch::stable::new_empty(like, sizes, ScalarType::Float);
}

int64_t size_of(const Tensor& tensor, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == 4, "q_*, k_* and v_* must be [R, time, heads, channels]");
  return tensor.size(dim);
}

// The operands that both operators share.
class Operands {
 public:
  Operands(const Tensor& q_left, const Tensor& q_right, const Tensor& v_left, const Tensor& v_right,
           const MaybeTensor& k_left, const MaybeTensor& k_right, const MaybeTensor& lag_bias,
           double scale, std::optional<int64_t> max_lag)
      : n_(size_of(q_left, 1)),
        m_(size_of(q_right, 1)),
        q_left_("q_left", q_left, q_left, n_, size_of(q_left, 3)),
        q_right_("q_right", q_right, q_left, m_, q_left.size(3)),
        v_left_("v_left", v_left, q_left, n_, size_of(v_left, 3)),
        v_right_("v_right", v_right, q_left, m_, v_left.size(3)) {
    STD_TORCH_CHECK(k_left.has_value() == k_right.has_value(),
                    "k_left and k_right must be given both or not at all");
    if (k_left.has_value()) {
      k_left_.emplace("k_left", *k_left, q_left, n_, q_left.size(3));
      k_right_.emplace("k_right", *k_right, q_left, m_, q_left.size(3));
    }
    const int64_t heads = q_left.size(2), d = q_left.size(3), dv = v_left.size(3);
    STD_TORCH_CHECK(q_left.numel() > 0 && q_right.numel() > 0 && v_left.numel() > 0,
                    "cross_attention has nothing to match: an input is empty");
    STD_TORCH_CHECK(d <= kMaxChannels && dv <= kMaxChannels, "the CUDA kernels take at most ",
                    kMaxChannels, " channels per head, got d ", d, " and dv ", dv);
    // Half of an int: room for the padding of the last tile.
    STD_TORCH_CHECK(n_ <= kMaxLength && m_ <= kMaxLength && heads <= 65535,
                    "the CUDA kernels take at most 2^30 time steps and 65535 heads");
    STD_TORCH_CHECK(!max_lag.has_value() || *max_lag >= 0, "max_lag must be at least 0");

    call_.problem.count = q_left.size(0);
    call_.problem.heads = static_cast<int>(heads);
    call_.problem.d = static_cast<int>(d);
    call_.problem.dv = static_cast<int>(dv);
    call_.problem.scale = static_cast<float>(scale);
    call_.shared = !k_left.has_value();
    call_.left.length = static_cast<int>(n_);
    call_.right.length = static_cast<int>(m_);
    call_.left.query = q_left_.view();
    call_.right.query = q_right_.view();
    call_.left.value = v_left_.view();
    call_.right.value = v_right_.view();
    if (k_left.has_value()) {
      call_.left.key = k_left_->view();
      call_.right.key = k_right_->view();
    }
    const float* bias = nullptr;
    if (lag_bias.has_value()) {
      STD_TORCH_CHECK(lag_bias->is_cuda() && lag_bias->scalar_type() == ScalarType::Float &&
                          lag_bias->dim() == 2 && lag_bias->size(0) == heads &&
                          lag_bias->size(1) % 2 == 1,
                      "lag_bias must be float32 [heads, 2 L + 1] on q_left's device");
      bias = static_cast<const float*>(lag_bias->data_ptr());
    }
    set_lags(call_, max_lag.value_or(-1), bias, bias == nullptr ? 0 : lag_bias->stride(0),
             bias == nullptr ? 0 : lag_bias->stride(1),
             bias == nullptr ? 0 : lag_bias->size(1) / 2);
    int bytes = 0;
    check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin,
                                 q_left.get_device_index()),
          "asking for the size of shared memory");
    call_.shared_memory = bytes;
  }

  Call call() const { return call_; }

 private:
  static constexpr int64_t kMaxLength = int64_t{1} << 30;

  int64_t n_, m_;
  Input q_left_, q_right_, v_left_, v_right_;
  std::optional<Input> k_left_, k_right_;
  Call call_;
};

std::tuple<Tensor, Tensor, Tensor, Tensor> run_forward(Tensor q_left, Tensor q_right, Tensor v_left,
                                                       Tensor v_right, MaybeTensor k_left,
                                                       MaybeTensor k_right, MaybeTensor lag_bias,
                                                       double scale,
                                                       std::optional<int64_t> max_lag) {
  const torch::stable::accelerator::DeviceGuard guard(q_left.get_device_index());
  const Operands operands(q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, scale,
                          max_lag);
  Call call = operands.call();
  const int64_t r = call.problem.count, heads = call.problem.heads;
  const Tensor o_left = new_like(v_left), o_right = new_like(v_right);
  const Tensor lse_left = new_floats(q_left, {r, heads, call.left.length});
  const Tensor lse_right = new_floats(q_left, {r, heads, call.right.length});
  call.left.new_output = o_left.data_ptr();
  call.right.new_output = o_right.data_ptr();
  call.left.lse = static_cast<float*>(lse_left.data_ptr());
  call.right.lse = static_cast<float*>(lse_right.data_ptr());
  const cudaStream_t stream = current_stream(q_left.get_device_index());
  with_type(q_left.scalar_type(), [&](auto type) { forward<decltype(type)>(call, stream); });
  return {o_left, o_right, lse_left, lse_right};
}

float* lse_of(const char* name, const Tensor& lse, const Call& call, const Ear& ear) {
  STD_TORCH_CHECK(lse.is_cuda() && lse.scalar_type() == ScalarType::Float && lse.is_contiguous() &&
                      lse.dim() == 3 && lse.size(0) == call.problem.count &&
                      lse.size(1) == call.problem.heads && lse.size(2) == ear.length,
                  name, " must be what cross_attention_forward returned");
  return static_cast<float*>(lse.data_ptr());
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> run_backward(
    Tensor do_left, Tensor do_right, Tensor q_left, Tensor q_right, Tensor v_left, Tensor v_right,
    MaybeTensor k_left, MaybeTensor k_right, MaybeTensor lag_bias, Tensor o_left, Tensor o_right,
    Tensor lse_left, Tensor lse_right, double scale, std::optional<int64_t> max_lag) {
  const torch::stable::accelerator::DeviceGuard guard(q_left.get_device_index());
  const Operands operands(q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, scale,
                          max_lag);
  Call call = operands.call();
  const int64_t n = call.left.length, m = call.right.length, dv = call.problem.dv;
  const Input in_do_left("do_left", do_left, q_left, n, dv),
      in_do_right("do_right", do_right, q_left, m, dv);
  const Input in_o_left("o_left", o_left, q_left, n, dv),
      in_o_right("o_right", o_right, q_left, m, dv);
  call.left.d_output = in_do_left.view();
  call.right.d_output = in_do_right.view();
  call.left.output = in_o_left.view();
  call.right.output = in_o_right.view();
  call.left.lse = lse_of("lse_left", lse_left, call, call.left);
  call.right.lse = lse_of("lse_right", lse_right, call, call.right);

  // What is absent is an empty tensor of its own: results may not share memory.
  auto none = [&] { return torch::stable::new_empty(q_left, {0}); };
  const Tensor dq_left = new_like(q_left), dq_right = new_like(q_right);
  const Tensor dv_left = new_like(v_left), dv_right = new_like(v_right);
  const Tensor dk_left = call.shared ? none() : new_like(*k_left);
  const Tensor dk_right = call.shared ? none() : new_like(*k_right);
  call.left.d_query = dq_left.data_ptr();
  call.right.d_query = dq_right.data_ptr();
  call.left.d_value = dv_left.data_ptr();
  call.right.d_value = dv_right.data_ptr();
  call.left.d_key = call.shared ? nullptr : dk_left.data_ptr();
  call.right.d_key = call.shared ? nullptr : dk_right.data_ptr();

  Tensor dlag_bias = none();
  const cudaStream_t stream = current_stream(q_left.get_device_index());
  with_type(q_left.scalar_type(), [&](auto type) {
    using T = decltype(type);
    const BackwardPlan plan = plan_backward<T>(call);
    // Freed at the end: what is queued on this stream afterwards may have the memory, as PyTorch's
    // allocator promises.
    MaybeTensor delta_left, delta_right, parts, arrived;
    if (!plan.on_chip) {
      delta_left = new_floats(q_left, {call.problem.count, call.problem.heads, n});
      delta_right = new_floats(q_left, {call.problem.count, call.problem.heads, m});
      call.left.delta = static_cast<float*>(delta_left->data_ptr());
      call.right.delta = static_cast<float*>(delta_right->data_ptr());
    }
    if (lag_bias.has_value()) {
      dlag_bias = new_floats(q_left, {call.problem.heads, lag_bias->size(1)});
      call.problem.d_lag_bias = static_cast<float*>(dlag_bias.data_ptr());
      parts = new_floats(q_left, {part_elements(call.problem, plan.parts)});
      call.problem.d_lag_bias_parts = static_cast<float*>(parts->data_ptr());
      if (!plan.on_chip) {
        arrived = torch::stable::new_empty(q_left, {call.problem.heads}, ScalarType::Int);
        call.problem.arrived = static_cast<unsigned*>(arrived->data_ptr());
      }
    }
    backward<T>(call, plan, stream);
  });
  return {dq_left, dq_right, dv_left, dv_right, dk_left, dk_right, dlag_bias};
}

}  // namespace
}  // namespace binaural::cross_attention::gpu

STABLE_TORCH_LIBRARY_IMPL(binaural, CUDA, m) {
  m.impl("cross_attention_forward", TORCH_BOX(&binaural::cross_attention::gpu::run_forward));
  m.impl("cross_attention_backward", TORCH_BOX(&binaural::cross_attention::gpu::run_backward));
}
