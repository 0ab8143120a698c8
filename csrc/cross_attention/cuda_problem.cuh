// What the CUDA kernels of cross-attention are told, and what all of them do the same way.
//
// A job is one similarity matrix S of `rows` with `columns`, read in one direction or both. Shared
// similarity is one job with both directions, or two that mirror each other; separate similarity is
// one per direction.
#pragma once

#include <cmath>
#include <cstdint>

#include "common/warp_matrix.cuh"

namespace binaural::cross_attention::gpu {

constexpr float kLog2E = 1.4426950408889634f;
constexpr float kLn2 = 0.6931471805599453f;
constexpr int kMaxJobs = 4;

// Blocks per multiprocessor that a kernel must leave registers for; 0 leaves it to the compiler,
// which for float would rather spill than not have two.
template <class T>
constexpr int kMinBlocks = sizeof(T) == 2 ? 0 : 1;

// A tensor [R, time, heads, channels] with contiguous channels; strides in elements.
struct View {
  const void* data = nullptr;
  int64_t problem_stride = 0, time_stride = 0, head_stride = 0;
  bool vectors = false;  // every row may be read 16 bytes at a time
};

// One ear. `similar` is what S is made of: its queries, or its keys.
struct Side {
  int length = 0;
  View similar, value;
  View output, d_output;       // read by the backward
  float* lse = nullptr;        // [R, heads, length], natural logarithm
  float* delta = nullptr;      // [R, heads, length], sum of output * d_output
  void* new_output = nullptr;  // [R, length, heads, dv]
  void* d_similar = nullptr;   // [R, length, heads, d]
  void* d_value = nullptr;     // [R, length, heads, dv]
};

struct Job {
  Side rows, columns;
  bool rows_attend = false;     // to columns: softmax over each row of S
  bool columns_attend = false;  // to rows: softmax over each column
  int sign = 1;                 // lag = sign * (column - row)
};

struct Problem {
  int64_t count = 0;  // R
  int heads = 0, d = 0, dv = 0, jobs = 0;
  float scale = 0;
  int max_lag = 0;                  // at least the longest lag where there is no limit
  const float* lag_bias = nullptr;  // that of lag 0, head 0; null without a bias
  int64_t bias_head_stride = 0, bias_lag_stride = 0;
  int reach = 0;                      // the longest lag with a bias
  float* d_lag_bias_parts = nullptr;  // [R, heads, parts, 2 reach + 1]; null if not asked for
  int parts = 0;                      // blocks of one problem and head that add to it
  int part_blocks = 0;                // those of one job, blockwise
  float* d_lag_bias = nullptr;        // [heads, 2 longest + 1]
  int64_t longest = 0;
  unsigned* arrived = nullptr;  // [heads], where the blockwise backward's own blocks sum the parts
  Job job[kMaxJobs];
};

// Elements from one row of a shared tile to the next.
template <class T, int kColumns>
constexpr int kStride = kColumns + 16 / static_cast<int>(sizeof(T));

template <class T>
__device__ const T* base_of(const View& view, int64_t problem, int head) {
  return static_cast<const T*>(view.data) + problem * view.problem_stride + head * view.head_stride;
}

// Row `time` of a contiguous [R, length, heads, channels].
template <class T>
__device__ T* row_of(void* data, const Problem& p, int64_t problem, int head, int length, int time,
                     int channels) {
  return static_cast<T*>(data) + ((problem * length + time) * p.heads + head) * channels;
}

// Rows first ... first + rows of a view into shared memory, zeros beyond its length and its
// channels. Asynchronous where the view allows: wait_copies and a barrier make it visible.
template <class T, int kColumns>
__device__ void load_rows(T* tile, const View& view, const T* base, int first, int rows, int length,
                          int channels) {
  constexpr int kVector = 16 / sizeof(T), kVectors = kColumns / kVector;
  for (int i = threadIdx.x; i < rows * kVectors; i += blockDim.x) {
    const int row = i / kVectors, column = i % kVectors * kVector;
    const bool inside = first + row < length && column < channels;
    const T* from = inside ? base + (first + row) * view.time_stride + column : base;
    T* to = tile + row * kStride<T, kColumns> + column;
    if (view.vectors) {
      copy_16_async(to, from, inside);
    } else {
#pragma unroll
      for (int e = 0; e < kVector; e++) {
        to[e] = inside && column + e < channels ? from[e] : from_float<T>(0.0f);
      }
    }
  }
}

// S in units of log2, from the plain product of a row with a column and the bias of their lag in
// units of log2; -inf for pairs that do not match.
__device__ inline float logit(const Problem& p, const Job& job, float bias, float product, int row,
                              int column) {
  if (row >= job.rows.length || column >= job.columns.length || abs(column - row) > p.max_lag) {
    return -INFINITY;
  }
  return fmaf(product, p.scale * kLog2E, bias);
}

__device__ inline const float* bias_of(const Problem& p, int head) {
  return p.lag_bias == nullptr ? nullptr : p.lag_bias + head * p.bias_head_stride;
}

// The bias of a column and a row that are column - row apart, in units of log2; `bias` may be null.
__device__ inline float bias_at(const Problem& p, const Job& job, const float* bias,
                                int difference) {
  if (bias == nullptr || abs(difference) > p.reach) return 0;
  return bias[job.sign * difference * p.bias_lag_stride] * kLog2E;
}

// exp2(s - shift), 0 for a pair that does not match, whatever the shift.
__device__ inline float probability(float s, float shift) {
  return s == -INFINITY ? 0.0f : exp2f(s - shift);
}

// Over the four lanes that share a row of a strip.
__device__ inline float row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
// Over the eight lanes that share a column.
__device__ inline float column_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 4));
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 8));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 16));
}
__device__ inline float column_sum(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 4);
  x += __shfl_xor_sync(kAllLanes, x, 8);
  return x + __shfl_xor_sync(kAllLanes, x, 16);
}

// Natural logarithm of a softmax's denominator, from its shift and sum in units of log2.
__device__ inline float log_sum(float shift, float sum) {
  return sum > 0 ? (shift + log2f(sum)) * kLn2 : -INFINITY;
}

// Write a strip's rows, times a factor each; rows that do not exist are null.
template <int kTiles, class T>
__device__ void store_strip(const float (&c)[kTiles][4], T* low, float low_factor, T* high,
                            float high_factor, int channels) {
#pragma unroll
  for (int n = 0; n < kTiles; n++) {
#pragma unroll
    for (int half = 0; half < 2; half++) {
      T* row = half == 0 ? low : high;
      const float factor = half == 0 ? low_factor : high_factor;
      const float first = c[n][2 * half] * factor, second = c[n][2 * half + 1] * factor;
      const int column = 8 * n + 2 * (lane_id() % 4);
      if (row == nullptr || column >= channels) continue;
      if (channels % 2 == 0) {
        store_pair(row + column, first, second);
      } else {
        row[column] = from_float<T>(first);
        if (column + 1 < channels) row[column + 1] = from_float<T>(second);
      }
    }
  }
}

// Two rows of a strip, g and g + 8 below `first`, of a contiguous [R, length, heads, channels].
template <int kTiles, class T>
__device__ void store_rows(const float (&c)[kTiles][4], void* data, const Problem& p,
                           int64_t problem, int head, int length, int first, int channels,
                           float low_factor, float high_factor) {
  const int low = first + lane_id() / 4, high = low + 8;
  store_strip(c, low < length ? row_of<T>(data, p, problem, head, length, low, channels) : nullptr,
              low_factor,
              high < length ? row_of<T>(data, p, problem, head, length, high, channels) : nullptr,
              high_factor, channels);
}

// Sum of products of two rows of which a group of kLanes lanes holds a vector each.
template <class T, int kLanes>
__device__ float dot(const T (&a)[16 / sizeof(T)], const T (&b)[16 / sizeof(T)]) {
  float sum = 0;
#pragma unroll
  for (int e = 0; e < static_cast<int>(16 / sizeof(T)); e++) {
    sum = fmaf(to_float(a[e]), to_float(b[e]), sum);
  }
#pragma unroll
  for (int lanes = kLanes / 2; lanes > 0; lanes /= 2) sum += __shfl_xor_sync(kAllLanes, sum, lanes);
  return sum;
}

// A vector of a row in global memory, zeros beyond its channels.
template <class T>
__device__ void read_vector(T (&out)[16 / sizeof(T)], const T* row, int column, int channels,
                            bool vectors) {
  if (vectors && column < channels) {
    *reinterpret_cast<uint4*>(out) = *reinterpret_cast<const uint4*>(row + column);
    return;
  }
#pragma unroll
  for (int e = 0; e < static_cast<int>(16 / sizeof(T)); e++) {
    out[e] = column + e < channels ? row[column + e] : from_float<T>(0.0f);
  }
}

}  // namespace binaural::cross_attention::gpu
