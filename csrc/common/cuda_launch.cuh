// What a CUDA kernel and its launch need from outside the kernel, on a GPU and in the tests'
// emulation (tests/csrc/cuda_emulation.h, which a test includes first).
#pragma once

#include <cuda_runtime.h>

#include <type_traits>

#ifndef CUDA_EMULATION
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/util/Exception.h>

// Weak: the extension loads beside a CPU-only torch too, and it is only called with a CUDA tensor
// at hand.
extern "C" __attribute__((weak)) AOTITorchError aoti_torch_get_current_cuda_stream(int32_t, void**);

// In a kernel: DYNAMIC_SHARED(float, tile); then tile is a float* to the launch's dynamic shared
// memory.
#define DYNAMIC_SHARED(type, name)                              \
  extern __shared__ __align__(16) char dynamic_shared_memory[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared_memory)
#endif

namespace binaural {

// Throw what went wrong, if anything did.
inline void check(cudaError_t status, const char* what) {
#ifdef CUDA_EMULATION
  if (status != cudaSuccess) cuda_emulation::fail(what);
#else
  STD_TORCH_CHECK(status == cudaSuccess, what, " failed: ", cudaGetErrorString(status));
#endif
}

// kernel<<<grid, threads, shared_bytes, stream>>>(arguments...)
template <class... Parameters>
void launch(void (*kernel)(Parameters...), dim3 grid, unsigned threads, size_t shared_bytes,
            cudaStream_t stream, std::type_identity_t<Parameters>... arguments) {
#ifdef CUDA_EMULATION
  cuda_emulation::launch(kernel, grid, threads, shared_bytes, arguments...);
#else
  if (shared_bytes > 48 * 1024) {  // beyond it, a kernel must ask
    check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                               static_cast<int>(shared_bytes)),
          "asking for shared memory");
  }
  void* pointers[] = {static_cast<void*>(&arguments)..., nullptr};
  check(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), grid, dim3(threads), pointers,
                         shared_bytes, stream),
        "launching a kernel");
#endif
}

#ifndef CUDA_EMULATION
// The stream that PyTorch uses now on this device.
inline cudaStream_t current_stream(int32_t device) {
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream != nullptr,
                  "CUDA tensors need a CUDA build of PyTorch");
  void* stream = nullptr;
  STD_TORCH_CHECK(aoti_torch_get_current_cuda_stream(device, &stream) == 0,
                  "PyTorch has no current stream on device ", device);
  return static_cast<cudaStream_t>(stream);
}
#endif

}  // namespace binaural
