// Tensors that the CPU kernels return.
#pragma once

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

// An uninitialised contiguous tensor on the CPU. A large one takes memory that an earlier one left.
inline torch::stable::Tensor new_result(const torch::stable::Tensor& like,
                                        const std::vector<int64_t>& sizes,
                                        torch::headeronly::ScalarType dtype) {
  constexpr int64_t kLarge = 1 << 20;  // bytes
  std::vector<int64_t> strides(sizes.size());
  int64_t count = 1;
  for (size_t i = sizes.size(); i-- > 0; count *= sizes[i]) strides[i] = count;
  const int64_t bytes = count * element_bytes(dtype);
  if (bytes < kLarge) return torch::stable::new_empty(like, sizes, dtype);
  return torch::stable::from_blob(take_memory(bytes), sizes, strides, like.device(), dtype,
                                  give_back_memory);
}

}  // namespace binaural
