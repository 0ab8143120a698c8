// The CUDA kernels of cross-attention on the CPU: C functions for the tests to call, and with
// -DPROGRAM a program that runs forward and backward once, for the sanitizers to watch.
// clang-format off
#include "cuda_emulation.h"
#include "cross_attention/cuda_plan.cuh"
#include "emulated_dtype.h"
// clang-format on

#include <string>

using namespace binaural::cross_attention::gpu;

namespace {

// The order of tensors in the arrays of the C functions.
enum { kQLeft, kQRight, kVLeft, kVRight, kKLeft, kKRight };

struct Sizes {
  int64_t count, n, m, heads, d, dv, element_bytes, max_lag, longest, shared_memory;
};

// strides: of the problem, time and head of each tensor.
Call make_call(const Sizes& sizes, const void* const* inputs, const int64_t (*strides)[3],
               const float* lag_bias, float scale) {
  Call call;
  call.problem.count = sizes.count;
  call.problem.heads = static_cast<int>(sizes.heads);
  call.problem.d = static_cast<int>(sizes.d);
  call.problem.dv = static_cast<int>(sizes.dv);
  call.problem.scale = scale;
  call.left.length = static_cast<int>(sizes.n);
  call.right.length = static_cast<int>(sizes.m);
  call.shared = inputs[kKLeft] == nullptr;
  call.shared_memory = sizes.shared_memory;
  // With nothing for a whole problem, the card that is emulated still has what the smallest has.
  cuda_emulation::most_shared_bytes =
      sizes.shared_memory == 0 ? kLeastSharedMemory : sizes.shared_memory;
  auto view = [&](int i, int64_t channels) {
    return make_view(inputs[i], strides[i][0], strides[i][1], strides[i][2], channels,
                     sizes.element_bytes);
  };
  call.left.query = view(kQLeft, sizes.d);
  call.right.query = view(kQRight, sizes.d);
  call.left.value = view(kVLeft, sizes.dv);
  call.right.value = view(kVRight, sizes.dv);
  call.left.key = view(kKLeft, sizes.d);
  call.right.key = view(kKRight, sizes.d);
  set_lags(call, sizes.max_lag, lag_bias, 2 * sizes.longest + 1, 1, sizes.longest);
  return call;
}

}  // namespace

extern "C" {

// outputs: o_left, o_right. dtype: 0 float32, 1 bfloat16, 2 float16.
void emulated_forward(int dtype, const Sizes* sizes, const void* const* inputs,
                      const int64_t (*strides)[3], const float* lag_bias, float scale,
                      void* const* outputs, float* lse_left, float* lse_right) {
  Call call = make_call(*sizes, inputs, strides, lag_bias, scale);
  call.left.new_output = outputs[0];
  call.right.new_output = outputs[1];
  call.left.lse = lse_left;
  call.right.lse = lse_right;
  with_type(dtype, [&](auto type) { forward<decltype(type)>(call, nullptr); });
}

// saved: o_left, o_right, do_left, do_right with their strides; outputs: dq_left, dq_right,
// dv_left, dv_right, dk_left, dk_right.
void emulated_backward(int dtype, const Sizes* sizes, const void* const* inputs,
                       const int64_t (*strides)[3], const float* lag_bias, float scale,
                       const void* const* saved, const int64_t (*saved_strides)[3], float* lse_left,
                       float* lse_right, void* const* outputs, float* d_lag_bias) {
  Call call = make_call(*sizes, inputs, strides, lag_bias, scale);
  auto view = [&](int i) {
    return make_view(saved[i], saved_strides[i][0], saved_strides[i][1], saved_strides[i][2],
                     sizes->dv, sizes->element_bytes);
  };
  call.left.output = view(0);
  call.right.output = view(1);
  call.left.d_output = view(2);
  call.right.d_output = view(3);
  call.left.lse = lse_left;
  call.right.lse = lse_right;
  call.left.d_query = outputs[kQLeft];
  call.right.d_query = outputs[kQRight];
  call.left.d_value = outputs[kVLeft];
  call.right.d_value = outputs[kVRight];
  call.left.d_key = outputs[kKLeft];
  call.right.d_key = outputs[kKRight];
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const BackwardPlan plan = plan_backward<T>(call);
    std::vector<float> delta, parts;
    std::vector<unsigned> arrived;
    if (!plan.on_chip) {
      delta.assign(sizes->count * sizes->heads * (sizes->n + sizes->m), NAN);
      call.left.delta = delta.data();
      call.right.delta = delta.data() + sizes->count * sizes->heads * sizes->n;
    }
    if (lag_bias != nullptr) {
      parts.assign(part_elements(call.problem, plan.parts), NAN);
      call.problem.d_lag_bias_parts = parts.data();
      call.problem.d_lag_bias = d_lag_bias;
      if (!plan.on_chip) {
        arrived.assign(sizes->heads, 12345);
        call.problem.arrived = arrived.data();
      }
    }
    cuda_emulation::global(delta, parts, arrived);
    backward<T>(call, plan, nullptr);
  });
}
}

#ifdef PROGRAM
// Arguments: dtype R N M heads d dv max_lag longest shared_memory keys. Every buffer is a heap
// block of its own, of exactly its size, and outputs start as NaN.
int main(int count, char** arguments) {
  std::vector<int64_t> a;
  for (int i = 1; i < count; i++) a.push_back(std::stoll(arguments[i]));
  const int dtype = static_cast<int>(a[0]);
  const Sizes sizes{a[1], a[2], a[3], a[4], a[5], a[6], dtype == 0 ? 4 : 2, a[7], a[8], a[9]};
  const bool keys = a[10] != 0;
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    unsigned state = 1;
    auto random = [&] {
      state = state * 1664525u + 1013904223u;
      return static_cast<float>(state >> 8) / (1 << 23) - 1;
    };
    auto filled = [&](int64_t elements, bool poison) {
      std::vector<T> out(elements);
      for (T& x : out) x = T(poison ? NAN : random());
      return out;
    };
    const int64_t lengths[2] = {sizes.n, sizes.m};
    std::vector<std::vector<T>> in, out, gradients, results;
    const void* inputs[6] = {};
    const void* saved[4];
    void *outputs[2], *d_inputs[6] = {};
    int64_t strides[6][3], saved_strides[4][3];
    auto set = [&](int64_t* s, int64_t length, int64_t channels) {
      s[0] = length * sizes.heads * channels, s[1] = sizes.heads * channels, s[2] = channels;
      return sizes.count * s[0];
    };
    for (int i = 0; i < 6; i++) {
      const int64_t elements =
          set(strides[i], lengths[i % 2], i == kVLeft || i == kVRight ? sizes.dv : sizes.d);
      if (i >= kKLeft && !keys) continue;
      in.push_back(filled(elements, false));
      results.push_back(filled(elements, true));
      inputs[i] = in.back().data();
      d_inputs[i] = results.back().data();
    }
    for (int i = 0; i < 2; i++) {
      const int64_t elements = set(saved_strides[i], lengths[i], sizes.dv);
      set(saved_strides[i + 2], lengths[i], sizes.dv);
      out.push_back(filled(elements, true));
      gradients.push_back(filled(elements, false));
      saved[i] = outputs[i] = out.back().data();
      saved[i + 2] = gradients.back().data();
    }
    std::vector<float> lse_left(sizes.count * sizes.heads * sizes.n, NAN);
    std::vector<float> lse_right(sizes.count * sizes.heads * sizes.m, NAN);
    std::vector<float> bias, d_bias;
    if (sizes.longest >= 0) {
      bias.assign(sizes.heads * (2 * sizes.longest + 1), 0.25f);
      d_bias.assign(bias.size(), NAN);
    }
    for (const auto* group : {&in, &results, &out, &gradients}) {
      for (const auto& tensor : *group) cuda_emulation::global(tensor);
    }
    cuda_emulation::global(lse_left, lse_right, bias, d_bias);
    const float* lag_bias = bias.empty() ? nullptr : bias.data();
    emulated_forward(dtype, &sizes, inputs, strides, lag_bias, 0.5f, outputs, lse_left.data(),
                     lse_right.data());
    emulated_backward(dtype, &sizes, inputs, strides, lag_bias, 0.5f, saved, saved_strides,
                      lse_left.data(), lse_right.data(), d_inputs, d_bias.data());
    bool written = true;
    for (const auto* group : {&out, &results}) {
      for (const auto& tensor : *group) {
        for (T x : tensor) written &= !std::isnan(static_cast<float>(x));
      }
    }
    for (const auto* tensor : {&lse_left, &lse_right, &d_bias}) {
      for (float x : *tensor) written &= !std::isnan(x);
    }
    std::puts(written ? "written" : "not all results are written");
  });
}
#endif
