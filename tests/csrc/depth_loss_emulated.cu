// The CUDA kernels of the depth loss on the CPU: C functions for the tests to call, and with
// -DPROGRAM a program that runs forward and backward once, for the sanitizers to watch.
// clang-format off
#include "cuda_emulation.h"
#include "depth_loss/cuda_kernel.cuh"
#include "emulated_dtype.h"
// clang-format on

#include <string>

using namespace binaural::depth_loss::gpu;

namespace {

template <class T>
Images<T> images_of(const void* data, const int64_t* strides) {
  return {static_cast<const T*>(data), {strides[0], strides[1], strides[2]}};
}

}  // namespace

extern "C" {

// dtype: 0 float32, 1 bfloat16, 2 float16. The target has pred's dtype or float32. coded may be
// null.
void emulated_forward(int pred_dtype, int target_dtype, const int64_t* shape, const void* pred,
                      const int64_t* pred_strides, const void* target,
                      const int64_t* target_strides, const float* weights, float* coded,
                      float* total, float* terms, float* scales) {
  const Size size = size_of(shape[1], shape[2]);
  std::vector<float> partial(kSums * block_count(shape[0], size), NAN);
  cuda_emulation::global(partial);
  with_type(pred_dtype, [&](auto p) {
    const auto run = [&](auto t) {
      launch_forward(images_of<decltype(p)>(pred, pred_strides),
                     images_of<decltype(t)>(target, target_strides), shape[0], size, weights, coded,
                     partial.data(), total, terms, scales, nullptr);
    };
    if (target_dtype == pred_dtype) {
      run(p);
    } else {
      run(float{});
    }
  });
}

void emulated_backward(int dtype, const float* grad_total, const float* coded, const float* scales,
                       void* grad_pred, int64_t count) {
  with_type(dtype, [&](auto type) {
    launch_backward(grad_total, coded, scales, static_cast<decltype(type)*>(grad_pred), count,
                    nullptr);
  });
}
}

#ifdef PROGRAM
// Arguments: dtype B H W. Every buffer is a heap block of its own, of exactly its size.
int main(int, char** arguments) {
  const int dtype = std::stoi(arguments[1]);
  const int64_t shape[3] = {std::stoll(arguments[2]), std::stoll(arguments[3]),
                            std::stoll(arguments[4])};
  const int64_t strides[3] = {shape[1] * shape[2], shape[2], 1};
  const int64_t count = shape[0] * strides[0];
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    std::vector<T> pred(count), target(count), grad_pred(count);
    unsigned state = 1;
    for (auto* images : {&pred, &target}) {
      for (T& x : *images)
        x = T(static_cast<float>((state = state * 1664525u + 1013904223u) >> 28));
    }
    const std::vector<float> weights = {1, 0.2f, 0.1f}, grad_total = {1};
    std::vector<float> coded(count, NAN), total(1, NAN), terms(3, NAN), scales(2, NAN);
    cuda_emulation::global(pred, target, grad_pred);
    cuda_emulation::global(weights, grad_total, coded, total, terms, scales);
    emulated_forward(dtype, dtype, shape, pred.data(), strides, target.data(), strides,
                     weights.data(), coded.data(), total.data(), terms.data(), scales.data());
    emulated_backward(dtype, grad_total.data(), coded.data(), scales.data(), grad_pred.data(),
                      count);
    float sum = total[0];
    for (const T& x : grad_pred) sum += static_cast<float>(x);
    std::puts(std::isfinite(sum) ? "written" : "left");
  });
}
#endif
