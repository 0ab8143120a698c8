// Channels-last maps as the operators of the fused layers take and return them.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <string>
#include <vector>

#include "common/results.h"
#include "layers/cpu_kernel.h"

namespace binaural::layers {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

template <class S>
constexpr ScalarType kStored = std::is_same_v<S, float> ? ScalarType::Float : ScalarType::BFloat16;

template <class S>
static const Kernels<S>& kernels_for() {
  if constexpr (std::is_same_v<S, float>) {
    return best_kernels().float32;
  } else {
    return best_kernels().bfloat16;
  }
}

// Calls run(S{}) with the storage type of a map.
template <class Run>
auto with_storage(const Tensor& map, Run run) {
  return map.scalar_type() == ScalarType::BFloat16 ? run(BFloat16{}) : run(float{});
}

// A map [B, C, H, W] in memory as [B, H, W, C], with `step` ≥ C elements from one pixel to the
// next: it may be a slice of the channels of another map. With C = 0 it has a size and no elements.
template <class S>
struct Map {
  Map(const Tensor& tensor, const char* name) {
    STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == kStored<S> && tensor.dim() == 4,
                    name,
                    " must be a tensor [B, C, H, W] on the CPU, of the dtype of the other maps");
    data = static_cast<const S*>(tensor.data_ptr());
    batch = tensor.size(0), channels = tensor.size(1);
    height = tensor.size(2), width = tensor.size(3);
    // A dimension of one element may have any stride.
    const int64_t sizes[3] = {width, height, batch};
    const int64_t strides[3] = {tensor.stride(3), tensor.stride(2), tensor.stride(0)};
    int64_t per = 1;
    step = channels;
    for (int i = 0; i < 3; ++i) {
      if (sizes[i] == 1 || channels == 0) continue;
      if (per == 1) step = strides[i];
      STD_TORCH_CHECK(strides[i] == per * step, name, " must be channels-last");
      per *= sizes[i];
    }
    STD_TORCH_CHECK((channels <= 1 || tensor.stride(1) == 1) && step >= channels, name,
                    " must be channels-last");
  }
  int64_t pixels() const { return batch * height * width; }
  bool dense() const { return step == channels; }
  void check_whole(const char* name) const {
    STD_TORCH_CHECK(dense() && pixels() * channels > 0, name,
                    " must be channels-last without gaps, and not empty");
  }

  const S* data;
  int64_t batch, channels, height, width, step;
};

template <class S = float>
S* data_of(const Tensor& tensor) {
  return static_cast<S*>(tensor.data_ptr());
}

// The `size` float32 elements of a tensor that holds one for each channel or pixel of a map.
inline const float* numbers_of(const Tensor& tensor, int64_t size, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == ScalarType::Float &&
                      tensor.is_contiguous() && tensor.numel() == size,
                  name, " must be a float32 tensor of ", size, " elements on the CPU");
  return data_of<const float>(tensor);
}

// An uninitialised [B, H, W, C].
template <class S>
Tensor new_map(int64_t batch, int64_t height, int64_t width, int64_t channels) {
  return new_tensor({batch, height, width, channels}, kStored<S>);
}

// The minimum number of tasks of a thread, given the elements of one: smaller ones cost more to
// schedule than to run.
inline int64_t grain_of(int64_t elements) {
  return std::max<int64_t>(1, (1 << 13) / std::max<int64_t>(1, elements));
}

// Calls body(row) for all rows, distributed over the threads.
template <class Body>
void for_rows(int64_t rows, int64_t elements, Body body) {
  torch::stable::parallel_for(0, rows, grain_of(elements), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) body(row);
  });
}

}  // namespace binaural::layers
