// Kernels with and without a fault, to see what the emulation reports. argv[1] chooses.
// clang-format off
#include "cuda_emulation.h"
#include "common/cuda_launch.cuh"
#include "common/warp_matrix.cuh"
// clang-format on
#include <numeric>

// Reverse a block's slice through shared memory: the barrier is needed.
template <bool kBarrier>
__global__ void reverse(const int* __restrict__ in, int* __restrict__ out) {
  __shared__ int tile[64];
  tile[threadIdx.x] = in[64 * blockIdx.x + threadIdx.x];
  if (kBarrier) __syncthreads();
  out[64 * blockIdx.x + threadIdx.x] = tile[63 - threadIdx.x];
}

// Read what a lane of the same warp wrote: shuffles and lockstep order nothing, __syncwarp does.
template <bool kBarrier>
__global__ void neighbour(int* out) {
  DYNAMIC_SHARED(int, tile);
  tile[threadIdx.x] = threadIdx.x;
  int sum = __shfl_xor_sync(0xffffffffu, 0, 1);
  if (kBarrier) __syncwarp();
  out[threadIdx.x] = sum + tile[threadIdx.x ^ 1];
}

// One element too many of dynamic shared memory.
__global__ void overrun(int* out, int count) {
  DYNAMIC_SHARED(int, tile);
  if (threadIdx.x == 0) {
    for (int i = 0; i <= count; i++) tile[i] = i;
  }
  __syncthreads();
  out[threadIdx.x] = tile[threadIdx.x];
}

// All blocks write the same element.
__global__ void collide(int* out) {
  if (threadIdx.x == 0) out[0] = blockIdx.x;
}

// A sum over blocks by the last one to arrive: right, with an integer atomic.
__global__ void last_block(int* partial, unsigned* arrived, int* out) {
  int value = threadIdx.x;
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  if (threadIdx.x != 0) return;
  partial[blockIdx.x] = value;
  __threadfence();
  if (atomicAdd(arrived, 1u) != gridDim.x - 1) return;
  int sum = 0;
  for (unsigned b = 0; b < gridDim.x; b++) sum += partial[b];
  *out = sum;
}

// One half of a warp waits for the block, the other for the warp.
__global__ void diverge() {
  if (threadIdx.x < 16) {
    __syncthreads();
  } else {
    __syncwarp();
  }
}

// An asynchronous copy that is or is not waited for.
template <bool kWait>
__global__ void copy(const float* in, float* out) {
  DYNAMIC_SHARED(float, tile);
  cuda_emulation::copy_async(tile + 4 * threadIdx.x, in + 4 * threadIdx.x, 16, 16);
  cuda_emulation::commit_copies();
  if (kWait) cuda_emulation::wait_copies(0);
  for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = tile[4 * threadIdx.x + i];
}

// An asynchronous copy into a tile that other threads still read, unless there is a barrier. What
// the copy writes when it is waited for is in order either way: issuing it is the fault.
template <bool kBarrier>
__global__ void overwrite(const float* in, float* out) {
  DYNAMIC_SHARED(float, tile);
  auto copy_own_part = [&] {
    binaural::copy_16_async(tile + 4 * threadIdx.x, in + 4 * threadIdx.x, true);
    binaural::commit_copies();
  };
  copy_own_part();
  binaural::wait_copies<0>();
  __syncthreads();
  for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = tile[4 * (threadIdx.x ^ 1) + i];
  if (kBarrier) __syncthreads();
  copy_own_part();
  __syncthreads();
  binaural::wait_copies<0>();
}

int main(int, char** argv) {
  auto launch = [](auto kernel, int blocks, int threads, size_t bytes, auto... arguments) {
    binaural::launch(kernel, blocks, threads, bytes, nullptr, arguments...);
  };
  std::string name = argv[1];
  std::vector<int> in(256), out(256, -1);
  std::iota(in.begin(), in.end(), 0);
  bool right = true;
  if (name == "reverse" || name == "reverse_without_barrier") {
    launch(name == "reverse" ? reverse<true> : reverse<false>, 4, 64, 0, in.data(), out.data());
    for (int i = 0; i < 256; i++) right &= out[i] == i / 64 * 64 + 63 - i % 64;
  } else if (name == "neighbour" || name == "neighbour_without_barrier") {
    launch(name == "neighbour" ? neighbour<true> : neighbour<false>, 1, 64, 256, out.data());
    for (int i = 0; i < 64; i++) right &= out[i] == (i ^ 1);
  } else if (name == "within" || name == "overrun") {
    launch(overrun, 1, 32, 128, out.data(), name == "within" ? 31 : 32);
    for (int i = 0; i < 32; i++) right &= out[i] == i;
  } else if (name == "most" || name == "too_much") {
    cuda_emulation::most_shared_bytes = 99 << 10;
    launch(overrun, 1, 32, (99 << 10) + (name == "too_much"), out.data(), 31);
    for (int i = 0; i < 32; i++) right &= out[i] == i;
  } else if (name == "collide") {
    launch(collide, 2, 32, 0, out.data());
  } else if (name == "last_block") {
    unsigned arrived = 0;
    launch(last_block, 8, 32, 0, in.data(), &arrived, out.data());
    right = out[0] == 8 * 31 * 16;
  } else if (name == "diverge") {
    launch(diverge, 1, 32, 0);
  } else if (name == "copy" || name == "copy_without_wait") {
    std::vector<float> from(128, 2.5f), to(128);
    launch(name == "copy" ? copy<true> : copy<false>, 1, 32, 512, from.data(), to.data());
    for (float x : to) right &= x == 2.5f;
  } else if (name == "overwrite" || name == "overwrite_without_barrier") {
    std::vector<float> from(128), to(128);
    for (int i = 0; i < 128; i++) from[i] = i / 4;
    launch(name == "overwrite" ? overwrite<true> : overwrite<false>, 1, 32, 512, from.data(),
           to.data());
    for (int i = 0; i < 128; i++) right &= to[i] == (i / 4 ^ 1);
  }
  std::puts(right ? "right" : "wrong");
}
