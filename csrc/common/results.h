// Tensors that the CPU kernels return.
#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "common/memory.h"

namespace binaural {

inline int64_t element_bytes(torch::headeronly::ScalarType dtype) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Byte:
      return 1;
    case ScalarType::Float:
      return 4;
    case ScalarType::Double:
      return 8;
    default:  // BFloat16, Half
      return 2;
  }
}

inline std::vector<int64_t> contiguous_strides(const std::vector<int64_t>& sizes) {
  std::vector<int64_t> strides(sizes.size());
  int64_t count = 1;
  // As PyTorch: an empty dimension counts as one of one element.
  for (size_t i = sizes.size(); i-- > 0; count *= sizes[i] > 0 ? sizes[i] : 1) strides[i] = count;
  return strides;
}

// An uninitialised contiguous tensor on the CPU. Not by new_empty, which the dispatcher looks up by
// its name: that takes longer than a small kernel.
inline torch::stable::Tensor new_tensor(const std::vector<int64_t>& sizes,
                                        torch::headeronly::ScalarType dtype) {
  const std::vector<int64_t> strides = contiguous_strides(sizes);
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(dtype)),
      aoti_torch_device_type_cpu(), -1, &handle));
  torch::stable::Tensor tensor(handle);
  poison(tensor.data_ptr(), tensor.numel() * element_bytes(dtype));
  return tensor;
}

// The same, but a large one takes memory that an earlier one left.
inline torch::stable::Tensor new_result(const std::vector<int64_t>& sizes,
                                        torch::headeronly::ScalarType dtype) {
  constexpr int64_t kLarge = 1 << 20;  // bytes
  int64_t bytes = element_bytes(dtype);
  for (const int64_t size : sizes) bytes *= size;
  if (bytes < kLarge) return new_tensor(sizes, dtype);
  const torch::stable::Device cpu(torch::headeronly::DeviceType::CPU);
  return torch::stable::from_blob(take_memory(bytes), sizes, contiguous_strides(sizes), cpu, dtype,
                                  give_back_memory);
}

}  // namespace binaural
