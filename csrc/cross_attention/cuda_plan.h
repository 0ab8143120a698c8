// Which kernel runs a call, as jobs for it. Implemented in cuda_plan.cuh, once per element type.
#pragma once

#include "cross_attention/cuda_problem.cuh"

namespace binaural::cross_attention::gpu {

// The longest row that the kernels hold, of queries and keys or of values.
constexpr int kMaxChannels = 128;

// A tensor [R, time, heads, channels] whose channels are contiguous.
inline View make_view(const void* data, int64_t problem_stride, int64_t time_stride,
                      int64_t head_stride, int64_t channels, int64_t element_bytes) {
  const int64_t vector = 16 / element_bytes;
  const bool vectors = reinterpret_cast<uintptr_t>(data) % 16 == 0 &&
                       problem_stride % vector == 0 && time_stride % vector == 0 &&
                       head_stride % vector == 0 && channels % vector == 0;
  return {data, problem_stride, time_stride, head_stride, vectors};
}

struct Ear {
  int length = 0;
  View query, key, value, output, d_output;
  float* lse = nullptr;
  float* delta = nullptr;
  void* new_output = nullptr;
  void* d_query = nullptr;
  void* d_key = nullptr;
  void* d_value = nullptr;
};

struct Call {
  Problem problem;  // all but the jobs
  Ear left, right;
  bool shared = true;        // one similarity for both directions: no keys
  size_t shared_memory = 0;  // bytes that a block may use on this device
};

struct BackwardPlan {
  bool on_chip = false;  // otherwise Ear::delta and, with a bias, Problem::arrived are needed
  int parts = 0;         // of the bias gradient, for each problem and head
  int part_blocks = 0;   // those of one job, blockwise
};

// Lags beyond the sequences do not occur: a limit or a bias beyond them is cut, so that it fits an
// int. `lag_bias` [heads, 2 longest + 1] with the strides given may be null; max_lag < 0 is no
// limit.
inline void set_lags(Call& call, int64_t max_lag, const float* lag_bias, int64_t head_stride,
                     int64_t lag_stride, int64_t longest) {
  const int64_t most = (call.left.length > call.right.length ? call.left : call.right).length;
  Problem& p = call.problem;
  p.max_lag = static_cast<int>(max_lag < 0 || max_lag > most ? most : max_lag);
  if (lag_bias == nullptr) return;
  p.lag_bias = lag_bias + longest * lag_stride;
  p.bias_head_stride = head_stride;
  p.bias_lag_stride = lag_stride;
  p.longest = longest;
  p.reach = static_cast<int>(longest > most ? most : longest);
}

// Floats of workspace for the parts of the bias gradient.
inline int64_t part_elements(const Problem& p, int parts) {
  return p.count * p.heads * parts * (2 * int64_t{p.reach} + 1);
}

template <class T>
void forward(const Call& call, cudaStream_t stream);

template <class T>
BackwardPlan plan_backward(const Call& call);

template <class T>
void backward(const Call& call, const BackwardPlan& plan, cudaStream_t stream);

}  // namespace binaural::cross_attention::gpu
