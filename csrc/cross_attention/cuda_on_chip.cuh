// Cross-attention of sequences of at most 128 steps: one block holds the whole problem of one head,
// so that every operand is read once, S is computed once and serves both directions. Three matrix
// products forward, seven backward. Each warp owns 16 rows of S; products over rows go through
// shared memory.
#pragma once

#include "common/cuda_launch.cuh"
#include "cross_attention/cuda_problem.cuh"

namespace binaural::cross_attention::gpu {

constexpr int kOnChipLength = 128;
constexpr int kOnChipTiles = kOnChipLength / 8;

// Lags whose bias gradient a thread of the backward sums: of 16 rows and the most columns, by 32.
constexpr int kLagsPerThread = (16 + kOnChipLength + 31) / 32;

// Columns of S that the backward handles between two barriers.
template <class T>
constexpr int kChunk = sizeof(T) == 2 ? 64 : 32;

__host__ __device__ inline int round_to_16(int length) { return (length + 15) / 16 * 16; }

// Shared memory of a block, in bytes, for rows x columns.
template <class T, int kD, int kDv>
__host__ __device__ size_t on_chip_forward_bytes(int rows, int columns) {
  const int n = round_to_16(rows), m = round_to_16(columns);
  const int operands = (n + m) * kStride<T, kD>, weights = n * (m + kStride<T, 0>);
  return ((operands > weights ? operands : weights) + (n + m) * kStride<T, kDv>)*sizeof(T) +
         (2 * (n / 16) * m + m + n + m) * sizeof(float);
}

template <class T, int kD, int kDv>
__host__ __device__ size_t on_chip_backward_bytes(int rows, int columns, bool with_bias) {
  const int n = round_to_16(rows), m = round_to_16(columns);
  return ((n + m) * (kStride<T, kD> + 2 * kStride<T, kDv>)+2 * n *
          kStride<T, kChunk<T>>)*sizeof(T) +
         (2 * (n + m) + (with_bias ? n + m : 0)) * sizeof(float);
}

// The bias of every difference column - row, in units of log2, at [column - row + n - 1]: read from
// global memory once, and from here for every pair. Without a bias, nothing.
__device__ inline void load_bias(float* tile, const Problem& p, const Job& job, int head, int n,
                                 int m) {
  const float* bias = bias_of(p, head);
  if (bias == nullptr) return;
  for (int i = threadIdx.x; i < n + m; i += blockDim.x) {
    tile[i] = bias_at(p, job, bias, i - (n - 1));
  }
}

// Grid: (R * heads, jobs). Block: 32 threads for each 16 rows.
template <class T, int kD, int kDv>
__global__ void __launch_bounds__(2 * kOnChipLength, kMinBlocks<T>)
    on_chip_forward(const __grid_constant__ Problem p) {
  const Job& job = p.job[blockIdx.y];
  const int64_t problem = blockIdx.x / p.heads;
  const int head = blockIdx.x % p.heads;
  const int rows = job.rows.length, columns = job.columns.length;
  const int n = round_to_16(rows), m = round_to_16(columns);
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane_id() / 4, t = lane_id() % 4;
  // Where the two jobs differ in length, a block may have more warps than its job has rows for.
  const int first = 16 * warp, owners = n / 16;
  const bool owner = warp < owners;
  const int weight_stride = m + kStride<T, 0>;

  // The weights of the columns' softmax take the place of the operands of S.
  DYNAMIC_SHARED(T, left);                                                     // [n, d]
  T* right = left + n * kStride<T, kD>;                                        // [m, d]
  T* weights = left;                                                           // [n, m]
  T* column_values = left + max((n + m) * kStride<T, kD>, n * weight_stride);  // [m, dv]
  T* row_values = column_values + m * kStride<T, kDv>;                         // [n, dv]
  float* maxima = reinterpret_cast<float*>(row_values + n * kStride<T, kDv>);  // [owners, m]
  float* sums = maxima + owners * m;                                           // [owners, m]
  float* shifts = sums + owners * m;                                           // [m]
  float* lag_bias = shifts + m;                                                // [n + m]

  auto load = [&](T* tile, const View& view, int length, auto channels_of_tile, int channels) {
    load_rows<T, decltype(channels_of_tile)::value>(tile, view, base_of<T>(view, problem, head), 0,
                                                    round_to_16(length), length, channels);
  };
  using D = std::integral_constant<int, kD>;
  using Dv = std::integral_constant<int, kDv>;
  load(left, job.rows.similar, rows, D{}, p.d);
  load(right, job.columns.similar, columns, D{}, p.d);
  commit_copies();
  load(column_values, job.columns.value, columns, Dv{}, p.dv);
  if (job.columns_attend) load(row_values, job.rows.value, rows, Dv{}, p.dv);
  commit_copies();
  load_bias(lag_bias, p, job, head, n, m);
  wait_copies<1>();
  __syncthreads();

  float s[kOnChipTiles][4] = {};  // 16 rows of S
  if (owner) {
    multiply_nt<kD>(s, left + first * kStride<T, kD>, kStride<T, kD>, right, kStride<T, kD>, m / 8);
  }
  const bool with_bias = p.lag_bias != nullptr;
#pragma unroll
  for (int tile = 0; tile < kOnChipTiles; tile++) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      const int row = first + g + i / 2 * 8, column = 8 * tile + 2 * t + i % 2;
      const bool inside = with_bias && row < n && column < m;
      const float bias = inside ? lag_bias[column - row + n - 1] : 0;
      s[tile][i] = logit(p, job, bias, s[tile][i], row, column);
    }
  }
  wait_copies<0>();

  if (job.columns_attend) {
#pragma unroll
    for (int tile = 0; tile < kOnChipTiles; tile++) {
      if (8 * tile >= m || !owner) continue;
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float most = column_max(fmaxf(s[tile][i], s[tile][i + 2]));
        if (g == 0) maxima[warp * m + 8 * tile + 2 * t + i] = most;
      }
    }
    __syncthreads();  // from here on the operands of S are not read any more
    for (int column = threadIdx.x; column < m; column += blockDim.x) {
      float most = -INFINITY;
      for (int w = 0; w < owners; w++) most = fmaxf(most, maxima[w * m + column]);
      shifts[column] = most;
    }
    __syncthreads();
#pragma unroll
    for (int tile = 0; tile < kOnChipTiles; tile++) {
      if (8 * tile >= m || !owner) continue;
      const int column = 8 * tile + 2 * t;
      float e[4];
#pragma unroll
      for (int i = 0; i < 4; i++) e[i] = probability(s[tile][i], shifts[column + i % 2]);
      store_pair(weights + (first + g) * weight_stride + column, e[0], e[1]);
      store_pair(weights + (first + g + 8) * weight_stride + column, e[2], e[3]);
#pragma unroll
      for (int i = 0; i < 2; i++) {
        const float sum = column_sum(e[i] + e[i + 2]);
        if (g == 0) sums[warp * m + column + i] = sum;
      }
    }
  }
  __syncthreads();

  // Rows attend to columns.
  if (owner) {
    float most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
#pragma unroll
    for (int tile = 0; tile < kOnChipTiles; tile++) {
#pragma unroll
      for (int i = 0; i < 4; i++) most[i / 2] = fmaxf(most[i / 2], s[tile][i]);
    }
    most[0] = row_max(most[0]);
    most[1] = row_max(most[1]);
#pragma unroll
    for (int tile = 0; tile < kOnChipTiles; tile++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[tile][i] = probability(s[tile][i], most[i / 2]);
        sum[i / 2] += s[tile][i];
      }
    }
    float out[kDv / 8][4] = {};
#pragma unroll
    for (int tile = 0; tile < kOnChipTiles; tile += 2) {
      if (8 * tile >= m) continue;
      multiply_nn(out, s[tile], s[tile + 1], column_values + 8 * tile * kStride<T, kDv>,
                  kStride<T, kDv>);
    }
    sum[0] = row_sum(sum[0]);
    sum[1] = row_sum(sum[1]);
    store_rows<kDv / 8, T>(out, job.rows.new_output, p, problem, head, rows, first, p.dv,
                           sum[0] > 0 ? 1 / sum[0] : 0, sum[1] > 0 ? 1 / sum[1] : 0);
    float* row_lse = job.rows.lse + (problem * p.heads + head) * rows;
    for (int half = 0; half < 2; half++) {
      const int row = first + g + 8 * half;
      if (t == 0 && row < rows) row_lse[row] = log_sum(most[half], sum[half]);
    }
  }

  // Columns attend to rows.
  if (!job.columns_attend) return;
  float* column_lse = job.columns.lse + (problem * p.heads + head) * columns;
  for (int begin = 16 * warp; begin < m; begin += 16 * warps) {
    float back[kDv / 8][4] = {};
    for (int row = 0; row < n; row += 16) {
      multiply_tn(back, weights + row * weight_stride + begin, weight_stride,
                  row_values + row * kStride<T, kDv>, kStride<T, kDv>);
    }
    float total[2] = {0, 0};
    for (int half = 0; half < 2; half++) {
      const int column = begin + g + 8 * half;
      for (int w = 0; w < owners; w++) total[half] += sums[w * m + column];
      if (t == 0 && column < columns) column_lse[column] = log_sum(shifts[column], total[half]);
    }
    store_rows<kDv / 8, T>(back, job.columns.new_output, p, problem, head, columns, begin, p.dv,
                           total[0] > 0 ? 1 / total[0] : 0, total[1] > 0 ? 1 / total[1] : 0);
  }
}

// What the backward needs to know of each step of one side: lse in units of log2, and delta. Reads
// `d_output` as load_rows wrote it: every thread its own.
template <class T, int kDv>
__device__ void load_statistics(float* lse, float* delta, const T* d_output, const Side& side,
                                const Problem& p, int64_t problem, int head) {
  constexpr int kVector = 16 / sizeof(T), kVectors = kDv / kVector;
  const float* saved = side.lse + (problem * p.heads + head) * side.length;
  const T* output = base_of<T>(side.output, problem, head);
  const int padded = round_to_16(side.length);
  for (int i = threadIdx.x; i < padded; i += blockDim.x) {
    lse[i] = i < side.length ? saved[i] * kLog2E : 0;
  }
  for (int i = threadIdx.x; i < padded * kVectors; i += blockDim.x) {
    const int row = i / kVectors, column = i % kVectors * kVector;
    alignas(16) T a[kVector], b[kVector];
    *reinterpret_cast<uint4*>(a) =
        *reinterpret_cast<const uint4*>(d_output + row * kStride<T, kDv> + column);
    read_vector(b, output + row * side.output.time_stride, column, row < side.length ? p.dv : 0,
                side.output.vectors);
    const float sum = dot<T, kVectors>(a, b);
    if (column == 0) delta[row] = sum;
  }
}

// Grid and block as in the forward.
template <class T, int kD, int kDv>
__global__ void __launch_bounds__(2 * kOnChipLength, 1)
    on_chip_backward(const __grid_constant__ Problem p) {
  const Job& job = p.job[blockIdx.y];
  const int64_t problem = blockIdx.x / p.heads;
  const int head = blockIdx.x % p.heads;
  const int rows = job.rows.length, columns = job.columns.length;
  const int n = round_to_16(rows), m = round_to_16(columns);
  const int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int g = lane_id() / 4, t = lane_id() % 4;
  const int first = 16 * warp;
  const bool owner = first < n;  // as in the forward
  constexpr int kS = kStride<T, kD>, kSv = kStride<T, kDv>, kSc = kStride<T, kChunk<T>>;
  const bool both = job.columns_attend;

  DYNAMIC_SHARED(T, left);           // [n, d]
  T* right = left + n * kS;          // [m, d]
  T* d_row_output = right + m * kS;  // [n, dv]
  T* column_values = d_row_output + n * kSv;
  T* row_values = column_values + m * kSv;
  T* d_column_output = row_values + n * kSv;
  T* weights = d_column_output + m * kSv;  // [n, chunk]: of the rows' softmax
  T* d_s = weights + n * kSc;              // [n, chunk]
  float* row_lse = reinterpret_cast<float*>(d_s + n * kSc);
  float* row_delta = row_lse + n;
  float* column_lse = row_delta + n;
  float* column_delta = column_lse + m;
  float* lag_bias = column_delta + m;  // [n + m], with a bias

  auto load = [&](T* tile, const View& view, int length, auto channels_of_tile, int channels) {
    load_rows<T, decltype(channels_of_tile)::value>(tile, view, base_of<T>(view, problem, head), 0,
                                                    round_to_16(length), length, channels);
  };
  using D = std::integral_constant<int, kD>;
  using Dv = std::integral_constant<int, kDv>;
  load(left, job.rows.similar, rows, D{}, p.d);
  load(right, job.columns.similar, columns, D{}, p.d);
  load(d_row_output, job.rows.d_output, rows, Dv{}, p.dv);
  load(column_values, job.columns.value, columns, Dv{}, p.dv);
  if (both) {
    load(row_values, job.rows.value, rows, Dv{}, p.dv);
    load(d_column_output, job.columns.d_output, columns, Dv{}, p.dv);
  }
  commit_copies();
  wait_copies<0>();
  // No barrier: every thread goes on with those parts of the gradients that it has copied itself.
  load_statistics<T, kDv>(row_lse, row_delta, d_row_output, job.rows, p, problem, head);
  if (both) {
    load_statistics<T, kDv>(column_lse, column_delta, d_column_output, job.columns, p, problem,
                            head);
  }
  load_bias(lag_bias, p, job, head, n, m);
  __syncthreads();

  const bool with_bias = p.lag_bias != nullptr;
  const int lags = rows + columns - 1;  // column - row from 1 - rows to columns - 1
  float lag_sums[kLagsPerThread] = {};
  float d_left[kD / 8][4] = {}, d_value[kDv / 8][4] = {};
  for (int chunk = 0; chunk < m; chunk += kChunk<T>) {
    const int width = min(kChunk<T>, m - chunk);
    for (int at = chunk; owner && at < chunk + width; at += 32) {
      const int tiles = min(4, (m - at) / 8);
      float s[4][4] = {}, dp[4][4] = {};
      multiply_nt<kD>(s, left + first * kS, kS, right + at * kS, kS, tiles);
      multiply_nt<kDv>(dp, d_row_output + first * kSv, kSv, column_values + at * kSv, kSv, tiles);
#pragma unroll
      for (int tile = 0; tile < 4; tile++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int row = first + g + i / 2 * 8, column = at + 8 * tile + 2 * t + i % 2;
          const float bias = with_bias && column < m ? lag_bias[column - row + n - 1] : 0;
          s[tile][i] = logit(p, job, bias, s[tile][i], row, column);
        }
        if (tile >= tiles) continue;
        const int column = at - chunk + 8 * tile + 2 * t;
        float weight[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const int row = first + g + i / 2 * 8;
          weight[i] = probability(s[tile][i], row_lse[row]);
          dp[tile][i] = weight[i] * (dp[tile][i] - row_delta[row]);
        }
        store_pair(weights + (first + g) * kSc + column, weight[0], weight[1]);
        store_pair(weights + (first + g + 8) * kSc + column, weight[2], weight[3]);
      }
      if (both) {
        float back[4][4] = {};
        multiply_nt<kDv>(back, row_values + first * kSv, kSv, d_column_output + at * kSv, kSv,
                         tiles);
#pragma unroll
        for (int tile = 0; tile < 4; tile++) {
          if (tile >= tiles) continue;
#pragma unroll
          for (int i = 0; i < 4; i++) {
            const int column = at + 8 * tile + 2 * t + i % 2;
            s[tile][i] = probability(s[tile][i], column_lse[column]);
            dp[tile][i] = fmaf(s[tile][i], back[tile][i] - column_delta[column], dp[tile][i]);
          }
        }
#pragma unroll
        for (int tile = 0; tile < 4; tile += 2) {
          if (tile >= tiles) continue;
          multiply_nn(d_value, s[tile], s[tile + 1], d_column_output + (at + 8 * tile) * kSv, kSv);
        }
      }
#pragma unroll
      for (int tile = 0; tile < 4; tile += 2) {
        if (tile >= tiles) continue;
        multiply_nn(d_left, dp[tile], dp[tile + 1], right + (at + 8 * tile) * kS, kS);
      }
#pragma unroll
      for (int tile = 0; tile < 4; tile++) {
        if (tile >= tiles) continue;
        const int column = at - chunk + 8 * tile + 2 * t;
        store_pair(d_s + (first + g) * kSc + column, dp[tile][0], dp[tile][1]);
        store_pair(d_s + (first + g + 8) * kSc + column, dp[tile][2], dp[tile][3]);
      }
    }
    __syncthreads();

    // Sums over rows: each warp takes 16 columns of one of the two results.
    for (int task = warp; task < width / 8; task += warps) {
      const int at = task / 2 * 16;
      if (task % 2 == 0) {
        float d_right[kD / 8][4] = {};
        for (int row = 0; row < n; row += 16) {
          multiply_tn(d_right, d_s + row * kSc + at, kSc, left + row * kS, kS);
        }
        store_rows<kD / 8, T>(d_right, job.columns.d_similar, p, problem, head, columns, chunk + at,
                              p.d, p.scale, p.scale);
      } else {
        float d_column_value[kDv / 8][4] = {};
        for (int row = 0; row < n; row += 16) {
          multiply_tn(d_column_value, weights + row * kSc + at, kSc, d_row_output + row * kSv, kSv);
        }
        store_rows<kDv / 8, T>(d_column_value, job.columns.d_value, p, problem, head, columns,
                               chunk + at, p.dv, 1, 1);
      }
    }
    if (p.d_lag_bias_parts != nullptr) {
#pragma unroll
      for (int k = 0; k < kLagsPerThread; k++) {
        const int i = threadIdx.x + k * blockDim.x;
        if (i >= lags) continue;
        const int lag = i - (rows - 1);
        const int end = min(rows, min(columns, chunk + width) - lag);
        for (int row = max(0, chunk - lag); row < end; row++) {
          lag_sums[k] += to_float(d_s[row * kSc + row + lag - chunk]);
        }
      }
    }
    __syncthreads();
  }
  if (owner) {
    store_rows<kD / 8, T>(d_left, job.rows.d_similar, p, problem, head, rows, first, p.d, p.scale,
                          p.scale);
    if (both) {
      store_rows<kDv / 8, T>(d_value, job.rows.d_value, p, problem, head, rows, first, p.dv, 1, 1);
    }
  }
  if (p.d_lag_bias_parts != nullptr) {
    const int64_t part = (problem * p.heads + head) * p.parts + blockIdx.y;
    float* out = p.d_lag_bias_parts + part * (2 * p.reach + 1);
    for (int i = threadIdx.x; i < 2 * p.reach + 1; i += blockDim.x) {
      const int at = job.sign * (i - p.reach) + rows - 1;
      if (at < 0 || at >= lags) out[i] = 0;
    }
#pragma unroll
    for (int k = 0; k < kLagsPerThread; k++) {
      const int i = threadIdx.x + k * blockDim.x, lag = job.sign * (i - (rows - 1));
      if (i < lags && abs(lag) <= p.reach) out[lag + p.reach] = lag_sums[k];
    }
  }
}

// The gradient of the bias [heads, 2 L + 1] from its parts [R, heads, parts, 2 reach + 1], always
// in the same order. Grid: (ceil((2 L + 1) / 32), heads). Block: 256 threads, 32 lags wide. One for
// each element type, as each of them is compiled by itself.
template <class T>
__global__ void __launch_bounds__(256) sum_lag_bias(const __grid_constant__ Problem p) {
  DYNAMIC_SHARED(float, sums);  // [8, 32]
  const int64_t lag = blockIdx.x * int64_t{32} + threadIdx.x % 32 - p.longest;
  const int head = blockIdx.y, group = threadIdx.x / 32;
  float sum = 0;
  if (lag >= -p.reach && lag <= p.reach) {
    for (int64_t i = group; i < p.count * p.parts; i += 8) {
      const int64_t part = (i / p.parts * p.heads + head) * p.parts + i % p.parts;
      sum += p.d_lag_bias_parts[part * (2 * p.reach + 1) + lag + p.reach];
    }
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (group > 0 || lag > p.longest) return;
  for (int other = 1; other < 8; other++) sum += sums[32 * other + threadIdx.x];
  p.d_lag_bias[head * (2 * p.longest + 1) + lag + p.longest] = sum;
}

}  // namespace binaural::cross_attention::gpu
