// Products of small matrices by one warp: tensor cores for bfloat16 and float16, multiply-adds for
// float.
//
// Accumulators live in registers as strips of 16 x 8 tiles, in the layout of mma.sync for every
// type: with g = lane / 4 and t = lane % 4, c[n][i] is at row g + 8 (i / 2), column 8 n + 2 t + i
// % 2. Operands are row-major in shared memory, rows a multiple of 16 bytes apart; a row stride of
// 16 bytes more than a multiple of 32 bytes keeps ldmatrix free of bank conflicts.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "common/convert.cuh"

namespace binaural {

constexpr unsigned kAllLanes = 0xffffffffu;

inline __device__ int lane_id() { return threadIdx.x % 32; }

// Two neighbours as one register, the first in the low half.
template <class T>
__device__ uint32_t pack(float first, float second) {
  T pair[2] = {from_float<T>(first), from_float<T>(second)};
  uint32_t bits;
  memcpy(&bits, pair, 4);
  return bits;
}

template <class T>
__device__ void store_pair(T* to, float first, float second) {
  if constexpr (sizeof(T) == 2) {
    *reinterpret_cast<uint32_t*>(to) = pack<T>(first, second);
  } else {
    *reinterpret_cast<float2*>(to) = make_float2(first, second);
  }
}

// ---- one function per instruction ----

// Four 8 x 8 matrices of 16-bit elements: lane 8 q + r gives the address of row r of matrix q.
template <bool kTransposed>
__device__ void load_matrices(uint32_t (&out)[4], const void* row) {
#ifdef CUDA_EMULATION
  cuda_emulation::load_matrices(out, row, kTransposed);
#else
  uint32_t address = static_cast<uint32_t>(__cvta_generic_to_shared(row));
  if constexpr (kTransposed) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(address)
                 : "memory");
  }
#endif
}

// c += a b for a 16 x 16, b 16 x 8.
template <class T>
__device__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
#ifdef CUDA_EMULATION
  const uint32_t b[2] = {b0, b1};
  cuda_emulation::multiply_16x8x16<T>(c, a, b);
#else
  if constexpr (std::is_same_v<T, __nv_bfloat16>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
        " {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7},"
        " {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
#endif
}

// Copy 16 bytes from global to shared memory in the background; zeros if not `valid`.
inline __device__ void copy_16_async(void* to, const void* from, bool valid) {
#ifdef CUDA_EMULATION
  cuda_emulation::copy_async(to, from, 16, valid ? 16 : 0);
#else
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
                   static_cast<uint32_t>(__cvta_generic_to_shared(to))),
               "l"(from), "r"(valid ? 16 : 0)
               : "memory");
#endif
}

inline __device__ void commit_copies() {
#ifdef CUDA_EMULATION
  cuda_emulation::commit_copies();
#else
  asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}

// Wait until all groups of this thread's copies but the last kPending are there.
template <int kPending>
__device__ void wait_copies() {
#ifdef CUDA_EMULATION
  cuda_emulation::wait_copies(kPending);
#else
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
#endif
}

// ---- products ----

// c (16 x 8 kTiles) += a (16 x kInner) b^T, with b (8 kTiles x kInner); only the first `tiles`
// tiles of c, an even number.
template <int kInner, int kTiles, class T>
__device__ void multiply_nt(float (&c)[kTiles][4], const T* a, int a_stride, const T* b,
                            int b_stride, int tiles = kTiles) {
  const int lane = lane_id();
  if constexpr (sizeof(T) == 2) {
    const T* a_row = a + lane % 16 * a_stride + lane / 16 * 8;
    const T* b_row = b + (lane % 8 + lane / 16 * 8) * b_stride + lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < kInner; k += 16) {
      uint32_t left[4];
      load_matrices<false>(left, a_row + k);
#pragma unroll
      for (int n = 0; n < kTiles; n += 2) {
        if (n >= tiles) continue;
        uint32_t right[4];
        load_matrices<false>(right, b_row + n * 8 * b_stride + k);
        multiply_add<T>(c[n], left, right[0], right[1]);
        multiply_add<T>(c[n + 1], left, right[2], right[3]);
      }
    }
  } else {
    const int g = lane / 4, t = lane % 4;
#pragma unroll 2
    for (int k = 0; k < kInner; k += 4) {
      const float4 low = *reinterpret_cast<const float4*>(a + g * a_stride + k);
      const float4 high = *reinterpret_cast<const float4*>(a + (g + 8) * a_stride + k);
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        if (n >= tiles) continue;
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const float4 right =
              *reinterpret_cast<const float4*>(b + (8 * n + 2 * t + i) * b_stride + k);
          c[n][i] = fmaf(low.x, right.x, c[n][i]);
          c[n][i] = fmaf(low.y, right.y, c[n][i]);
          c[n][i] = fmaf(low.z, right.z, c[n][i]);
          c[n][i] = fmaf(low.w, right.w, c[n][i]);
          c[n][i + 2] = fmaf(high.x, right.x, c[n][i + 2]);
          c[n][i + 2] = fmaf(high.y, right.y, c[n][i + 2]);
          c[n][i + 2] = fmaf(high.z, right.z, c[n][i + 2]);
          c[n][i + 2] = fmaf(high.w, right.w, c[n][i + 2]);
        }
      }
    }
  }
}

// c (16 x 8 kTiles) += p b, with p (16 x 16) two tiles in registers and b (16 x 8 kTiles).
template <int kTiles, class T>
__device__ void multiply_nn(float (&c)[kTiles][4], const float (&p0)[4], const float (&p1)[4],
                            const T* b, int b_stride) {
  const int lane = lane_id();
  if constexpr (sizeof(T) == 2) {
    // The accumulator's layout is that of the left operand, two tiles side by side.
    const uint32_t left[4] = {pack<T>(p0[0], p0[1]), pack<T>(p0[2], p0[3]), pack<T>(p1[0], p1[1]),
                              pack<T>(p1[2], p1[3])};
    const T* b_row = b + lane % 16 * b_stride + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      uint32_t right[4];
      load_matrices<true>(right, b_row + n * 8);
      multiply_add<T>(c[n], left, right[0], right[1]);
      multiply_add<T>(c[n + 1], left, right[2], right[3]);
    }
  } else {
#pragma unroll
    for (int k = 0; k < 16; k++) {
      const int source = (lane & ~3) | k % 8 / 2;
      const float low = __shfl_sync(kAllLanes, k < 8 ? p0[k % 2] : p1[k % 2], source);
      const float high = __shfl_sync(kAllLanes, k < 8 ? p0[2 + k % 2] : p1[2 + k % 2], source);
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        const float2 right =
            *reinterpret_cast<const float2*>(b + k * b_stride + 8 * n + 2 * (lane % 4));
        c[n][0] = fmaf(low, right.x, c[n][0]);
        c[n][1] = fmaf(low, right.y, c[n][1]);
        c[n][2] = fmaf(high, right.x, c[n][2]);
        c[n][3] = fmaf(high, right.y, c[n][3]);
      }
    }
  }
}

// c (16 x 8 kTiles) += a^T b, with a (16 x 16) and b (16 x 8 kTiles).
template <int kTiles, class T>
__device__ void multiply_tn(float (&c)[kTiles][4], const T* a, int a_stride, const T* b,
                            int b_stride) {
  const int lane = lane_id();
  if constexpr (sizeof(T) == 2) {
    uint32_t left[4];
    load_matrices<true>(left, a + (lane % 8 + lane / 16 * 8) * a_stride + lane / 8 % 2 * 8);
    const T* b_row = b + lane % 16 * b_stride + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < kTiles; n += 2) {
      uint32_t right[4];
      load_matrices<true>(right, b_row + n * 8);
      multiply_add<T>(c[n], left, right[0], right[1]);
      multiply_add<T>(c[n + 1], left, right[2], right[3]);
    }
  } else {
    const int g = lane / 4, t = lane % 4;
#pragma unroll 4
    for (int k = 0; k < 16; k++) {
      const float low = a[k * a_stride + g];
      const float high = a[k * a_stride + g + 8];
#pragma unroll
      for (int n = 0; n < kTiles; n++) {
        const float2 right = *reinterpret_cast<const float2*>(b + k * b_stride + 8 * n + 2 * t);
        c[n][0] = fmaf(low, right.x, c[n][0]);
        c[n][1] = fmaf(low, right.y, c[n][1]);
        c[n][2] = fmaf(high, right.x, c[n][2]);
        c[n][3] = fmaf(high, right.y, c[n][3]);
      }
    }
  }
}

}  // namespace binaural
