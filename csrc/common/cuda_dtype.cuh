// The C++ type of a tensor's dtype, for kernels that are templates over it.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

namespace binaural {

// Calls run(T{}).
template <class Run>
void with_type(torch::headeronly::ScalarType dtype, Run run) {
  using torch::headeronly::ScalarType;
  switch (dtype) {
    case ScalarType::Float:
      return run(float{});
    case ScalarType::BFloat16:
      return run(__nv_bfloat16{});
    case ScalarType::Half:
      return run(__half{});
    default:
      STD_TORCH_CHECK(false, "the CUDA kernels take float32, bfloat16 and float16");
  }
}

}  // namespace binaural
