// The CUDA kernels of the depth loss: one pass over tiles with halos, then a sum over the tiles.
//
// A block loads a tile with two pixels more on every side, computes the Sobel derivatives and the
// terms on one pixel more, and from them the gradient of the tile. A pixel without a measurement is
// NaN in the cleaned target, and so is all beyond the image: the stencil carries NaN to just those
// pixels that the erosion takes away. Sums are added in a fixed order, without atomics.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "common/convert.cuh"
#include "common/cuda_launch.cuh"

namespace binaural::depth_loss::gpu {

constexpr int kTile = 32;
constexpr int kThreads = 256;
constexpr int kDepths = kTile + 4;       // of a tile's side, with what its derivatives read
constexpr int kDerivatives = kTile + 2;  // and with what its gradient reads
constexpr int kSums = 5;                 // recon, edge, smooth, m, mₑ
constexpr float kEpsilon = 1e-6f;        // m²
// The bits of `coded` that hold a sign.
constexpr int kSign = 3;

template <class T>
struct Images {  // [B, H, W]
  const T* data;
  int64_t strides[3];  // in elements
};

struct Size {
  int height, width;
  int across, down;  // tiles of an image
};

__device__ inline float sign_of(float x) {
  return static_cast<float>(x > 0) - static_cast<float>(x < 0);
}

// The sum over the block in thread 0, in a fixed order.
template <class T>
__device__ T add_block(T value, T* per_warp) {  // [kThreads / 32]
  for (int step = 16; step > 0; step /= 2) value += __shfl_down_sync(0xffffffffu, value, step);
  __syncthreads();  // per_warp may still be read
  if (threadIdx.x % 32 == 0) per_warp[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = 0;
  if (threadIdx.x == 0) {
    for (int warp = 0; warp < kThreads / 32; ++warp) sum += per_warp[warp];
  }
  return sum;
}

// coded is null where no gradient is wanted; partial is [kSums, blocks].
template <class Pred, class Target>
__global__ void __launch_bounds__(kThreads)
    sweep(Images<Pred> pred, Images<Target> target, Size size,
          const float* __restrict__ weights,  // [3]
          float* __restrict__ coded,          // [B, H, W]
          float* __restrict__ partial) {      // [kSums, blocks]
  __shared__ float depth[kDepths][kDepths];
  __shared__ float measured[kDepths][kDepths];
  __shared__ float along_x[kDerivatives][kDerivatives];
  __shared__ float along_y[kDerivatives][kDerivatives];
  __shared__ float per_warp[kThreads / 32];
  const int64_t image = blockIdx.x / (size.across * size.down);
  const int top = static_cast<int>(blockIdx.x / size.across % size.down) * kTile;
  const int left = static_cast<int>(blockIdx.x % size.across) * kTile;
  const float nan = __int_as_float(0x7fc00000);

  for (int i = threadIdx.x; i < kDepths * kDepths; i += kThreads) {
    const int row = i / kDepths, column = i % kDepths;
    const int y = top + row - 2, x = left + column - 2;
    float p = 0, t = nan;
    if (y >= 0 && y < size.height && x >= 0 && x < size.width) {
      p = to_float(pred.data[image * pred.strides[0] + y * pred.strides[1] + x * pred.strides[2]]);
      t = to_float(
          target.data[image * target.strides[0] + y * target.strides[1] + x * target.strides[2]]);
      if (!(t > 0 && t < __int_as_float(0x7f800000))) t = nan;
    }
    depth[row][column] = p;
    measured[row][column] = t;
  }
  __syncthreads();

  const float edge_weight = weights[1], smooth_weight = weights[2];
  float sums[kSums] = {};
  for (int i = threadIdx.x; i < kDerivatives * kDerivatives; i += kThreads) {
    const int row = i / kDerivatives, column = i % kDerivatives;
    // The three by three pixels around it begin at [row][column] of the depths.
    const auto gradient_x = [&](const float (&g)[kDepths][kDepths]) {
      return (g[row][column + 2] + 2 * g[row + 1][column + 2] + g[row + 2][column + 2]) -
             (g[row][column] + 2 * g[row + 1][column] + g[row + 2][column]);
    };
    const auto gradient_y = [&](const float (&g)[kDepths][kDepths]) {
      return (g[row + 2][column] + 2 * g[row + 2][column + 1] + g[row + 2][column + 2]) -
             (g[row][column] + 2 * g[row][column + 1] + g[row][column + 2]);
    };
    const float tx = gradient_x(measured), ty = gradient_y(measured);
    const float t_square = tx * tx + (ty * ty + kEpsilon);
    const float centre = measured[row + 1][column + 1];
    // The stencils leave out the pixel itself, the erosion does not.
    const bool inner = t_square == t_square && centre == centre;
    float gx = 0, gy = 0;
    if (inner) {
      const float px = gradient_x(depth), py = gradient_y(depth);
      const float p_magnitude = sqrtf(px * px + (py * py + kEpsilon));
      const float t_magnitude = sqrtf(t_square);
      const float excess = p_magnitude - t_magnitude;
      const float closeness = expf(-t_magnitude);
      if (coded != nullptr) {
        const float push = edge_weight * sign_of(excess) / p_magnitude;
        const float pull = smooth_weight * closeness;
        gx = px * push + sign_of(px) * pull;
        gy = py * push + sign_of(py) * pull;
      }
      if (row >= 1 && row <= kTile && column >= 1 && column <= kTile) {
        sums[1] += fabsf(excess);
        sums[2] += (fabsf(px) + fabsf(py)) * closeness;
        sums[4] += 1;
      }
    }
    if (coded != nullptr) {
      along_x[row][column] = gx;
      along_y[row][column] = gy;
    }
  }
  __syncthreads();

  for (int i = threadIdx.x; i < kTile * kTile; i += kThreads) {
    const int row = i / kTile, column = i % kTile;
    const int y = top + row, x = left + column;
    if (y >= size.height || x >= size.width) continue;
    const float p = depth[row + 2][column + 2], t = measured[row + 2][column + 2];
    const float difference = p - t;
    if (t == t) {
      sums[0] += fabsf(difference);
      sums[3] += 1;
    }
    if (coded == nullptr) continue;
    // The transposed stencils.
    const auto across = [&](int r) { return along_x[r][column] - along_x[r][column + 2]; };
    const auto down = [&](int r) {
      return along_y[r][column] + 2 * along_y[r][column + 1] + along_y[r][column + 2];
    };
    const float gradient =
        (across(row) + 2 * across(row + 1) + across(row + 2)) + (down(row) - down(row + 2));
    const int sign = difference > 0 ? 1 : (difference < 0 ? 3 : 0);
    coded[(image * size.height + y) * size.width + x] =
        __int_as_float((__float_as_int(gradient) & ~kSign) | sign);
  }
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    const float sum = add_block(sums[k], per_warp);
    if (threadIdx.x == 0) partial[static_cast<int64_t>(k) * gridDim.x + blockIdx.x] = sum;
  }
}

// One block: the terms, from the sums of all tiles.
__global__ void __launch_bounds__(kThreads)
    finish(const float* __restrict__ partial,  // [kSums, count]
           int64_t count,
           const float* __restrict__ weights,  // [3]
           float* __restrict__ total,          // []
           float* __restrict__ terms,          // [3]
           float* __restrict__ scales) {       // [2] = weights[0] / Σ m, 1 / Σ mₑ
  __shared__ double per_warp[kThreads / 32];
  double sums[kSums];
#pragma unroll
  for (int k = 0; k < kSums; ++k) {
    double sum = 0;
    for (int64_t i = threadIdx.x; i < count; i += kThreads) sum += partial[k * count + i];
    sums[k] = add_block(sum, per_warp);
  }
  if (threadIdx.x != 0) return;
  const double per_valid = 1 / (sums[3] < 1 ? 1 : sums[3]);
  const double per_inner = 1 / (sums[4] < 1 ? 1 : sums[4]);
  const double values[3] = {sums[0] * per_valid, sums[1] * per_inner, sums[2] * per_inner};
  double weighted = 0;
#pragma unroll
  for (int k = 0; k < 3; ++k) {
    terms[k] = static_cast<float>(values[k]);
    weighted += weights[k] * values[k];
  }
  total[0] = static_cast<float>(weighted);
  scales[0] = static_cast<float>(weights[0] * per_valid);
  scales[1] = static_cast<float>(per_inner);
}

template <class T>
__global__ void __launch_bounds__(kThreads) decode(const float* __restrict__ grad_total,  // []
                                                   const float* __restrict__ coded,       // [count]
                                                   const float* __restrict__ scales,      // [2]
                                                   T* __restrict__ grad_pred,             // [count]
                                                   int64_t count) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  const float recon_scale = grad_total[0] * scales[0], edge_scale = grad_total[0] * scales[1];
  const int bits = __float_as_int(coded[i]), sign = bits & kSign;
  const float recon = sign == 1 ? recon_scale : (sign == 3 ? -recon_scale : 0);
  grad_pred[i] = from_float<T>(__int_as_float(bits & ~kSign) * edge_scale + recon);
}

inline Size size_of(int64_t height, int64_t width) {
  const auto tiles = [](int64_t length) { return static_cast<int>((length + kTile - 1) / kTile); };
  return {static_cast<int>(height), static_cast<int>(width), tiles(width), tiles(height)};
}

inline int64_t block_count(int64_t images, const Size& size) {
  return images * size.across * size.down;
}

template <class Pred, class Target>
void launch_forward(const Images<Pred>& pred, const Images<Target>& target, int64_t images,
                    const Size& size, const float* weights, float* coded, float* partial,
                    float* total, float* terms, float* scales, cudaStream_t stream) {
  const int64_t blocks = block_count(images, size);
  launch(sweep<Pred, Target>, static_cast<unsigned>(blocks), kThreads, 0, stream, pred, target,
         size, weights, coded, partial);
  launch(finish, 1, kThreads, 0, stream, partial, blocks, weights, total, terms, scales);
}

template <class T>
void launch_backward(const float* grad_total, const float* coded, const float* scales, T* grad_pred,
                     int64_t count, cudaStream_t stream) {
  launch(decode<T>, static_cast<unsigned>((count + kThreads - 1) / kThreads), kThreads, 0, stream,
         grad_total, coded, scales, grad_pred, count);
}

}  // namespace binaural::depth_loss::gpu
