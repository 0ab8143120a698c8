// Cross-attention of long sequences in O(N + M) memory: a block owns a tile of rows and goes over
// the columns, tile by tile, the next one on its way from memory while one is worked on. Every
// direction computes S for itself, so that no two blocks add to the same result and the order of
// sums is fixed.
#pragma once

#include "common/cuda_launch.cuh"
#include "cross_attention/cuda_problem.cuh"

namespace binaural::cross_attention::gpu {

// Rows that a block owns, 16 per warp, and columns of a tile. 4-byte elements and many channels get
// smaller ones, so that the tiles fit into the shared memory of every card since sm_80.
constexpr size_t kLeastSharedMemory = 99 << 10;
constexpr int kForwardRows = 64;
template <class T>
constexpr int kForwardColumns = sizeof(T) == 2 ? 64 : 32;
template <class T>
constexpr int kBackwardRows = sizeof(T) == 2 ? 64 : 32;
template <class T, int kD>
constexpr int kBackwardColumns = sizeof(T) == 2 && kD < 128 ? 32 : 16;
// Tiles of columns in shared memory. The products of 4-byte elements take so much longer than their
// copies that these need not be on their way meanwhile.
template <class T>
constexpr int kBackwardStages = sizeof(T) == 2 ? 2 : 1;

template <class T, int kD, int kDv>
constexpr size_t kForwardBytes =
    (kForwardRows * kStride<T, kD> + 2 * kForwardColumns<T> * (kStride<T, kD> + kStride<T, kDv>)) *
    sizeof(T);
template <class T, int kD>
constexpr int kLagStride = kBackwardColumns<T, kD> + 1;
template <class T, int kD, int kDv>
constexpr size_t blockwise_backward_bytes(bool with_bias) {
  constexpr int kTimes = kBackwardRows<T> + kBackwardStages<T> * kBackwardColumns<T, kD>;
  return kTimes * (kStride<T, kD> + 2 * kStride<T, kDv>)*sizeof(T) +
         (with_bias ? kBackwardRows<T> * kLagStride<T, kD> * sizeof(float) : 0);
}

// The tiles of columns that a tile of rows has pairs with: [begin, end).
__device__ inline void column_range(const Problem& p, int first, int rows, int columns, int width,
                                    int& begin, int& end) {
  begin = max(0, first - p.max_lag) / width * width;
  end = columns - first - rows > p.max_lag ? first + rows + p.max_lag : columns;
}

// Grid: (R * heads * tiles, jobs); each job is one direction, of rows to columns. Block: 128
// threads.
template <class T, int kD, int kDv>
__global__ void __launch_bounds__(2 * kForwardRows)
    blockwise_forward(const __grid_constant__ Problem p, int tiles) {
  const Job& job = p.job[blockIdx.y];
  const int tile_of_rows = blockIdx.x % tiles;
  const int64_t problem = blockIdx.x / tiles / p.heads;
  const int head = blockIdx.x / tiles % p.heads;
  const int rows = job.rows.length, columns = job.columns.length;
  const int block_first = tile_of_rows * kForwardRows;
  if (block_first >= rows) return;
  constexpr int kS = kStride<T, kD>, kSv = kStride<T, kDv>, kWidth = kForwardColumns<T>;
  const int warp = threadIdx.x / 32, g = lane_id() / 4, t = lane_id() % 4;

  DYNAMIC_SHARED(T, left);              // [64, d]
  T* right = left + kForwardRows * kS;  // 2 x [width, d]
  T* values = right + 2 * kWidth * kS;  // 2 x [width, dv]
  const T* right_base = base_of<T>(job.columns.similar, problem, head);
  const T* value_base = base_of<T>(job.columns.value, problem, head);
  auto load_columns = [&](int at, int stage) {
    load_rows<T, kD>(right + stage * kWidth * kS, job.columns.similar, right_base, at, kWidth,
                     columns, p.d);
    load_rows<T, kDv>(values + stage * kWidth * kSv, job.columns.value, value_base, at, kWidth,
                      columns, p.dv);
    commit_copies();
  };

  int begin, end;
  column_range(p, block_first, kForwardRows, columns, kWidth, begin, end);
  load_rows<T, kD>(left, job.rows.similar, base_of<T>(job.rows.similar, problem, head), block_first,
                   kForwardRows, rows, p.d);
  load_columns(begin, 0);

  const float* bias = bias_of(p, head);
  const int first = block_first + 16 * warp;
  float out[kDv / 8][4] = {}, most[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
  int stage = 0;
  for (int at = begin; at < end; at += kWidth, stage ^= 1) {
    if (at + kWidth < end) {
      load_columns(at + kWidth, stage ^ 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    float s[kWidth / 8][4] = {};
    multiply_nt<kD>(s, left + 16 * warp * kS, kS, right + stage * kWidth * kS, kS);
    float now[2] = {most[0], most[1]};
#pragma unroll
    for (int tile = 0; tile < kWidth / 8; tile++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = first + g + i / 2 * 8, column = at + 8 * tile + 2 * t + i % 2;
        s[tile][i] = logit(p, job, bias_at(p, job, bias, column - row), s[tile][i], row, column);
        now[i / 2] = fmaxf(now[i / 2], s[tile][i]);
      }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
      now[half] = row_max(now[half]);
      const float shrink = probability(most[half], now[half]);
      most[half] = now[half];
      sum[half] *= shrink;
#pragma unroll
      for (int n = 0; n < kDv / 8; n++) {
        out[n][2 * half] *= shrink;
        out[n][2 * half + 1] *= shrink;
      }
    }
#pragma unroll
    for (int tile = 0; tile < kWidth / 8; tile++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        s[tile][i] = probability(s[tile][i], most[i / 2]);
        sum[i / 2] += s[tile][i];
      }
    }
#pragma unroll
    for (int tile = 0; tile < kWidth / 8; tile += 2) {
      multiply_nn(out, s[tile], s[tile + 1], values + (stage * kWidth + 8 * tile) * kSv, kSv);
    }
    __syncthreads();
  }
  wait_copies<0>();
  sum[0] = row_sum(sum[0]);
  sum[1] = row_sum(sum[1]);
  store_rows<kDv / 8, T>(out, job.rows.new_output, p, problem, head, rows, first, p.dv,
                         sum[0] > 0 ? 1 / sum[0] : 0, sum[1] > 0 ? 1 / sum[1] : 0);
  float* lse = job.rows.lse + (problem * p.heads + head) * rows;
  for (int half = 0; half < 2; half++) {
    const int row = first + g + 8 * half;
    if (t == 0 && row < rows) lse[row] = log_sum(most[half], sum[half]);
  }
}

// delta = sum of output * d_output over the channels. Grid: (R * heads * tiles of 64 rows, 2): the
// two sides are the rows and the columns of the first job. Block: 128 threads.
template <class T>
__global__ void __launch_bounds__(128)
    output_products(const __grid_constant__ Problem p, int tiles) {
  constexpr int kVector = 16 / sizeof(T), kLanes = 8;
  if (p.arrived != nullptr && blockIdx.x == 0 && blockIdx.y == 0) {
    for (int i = threadIdx.x; i < p.heads; i += blockDim.x) p.arrived[i] = 0;
  }
  const Side& side = blockIdx.y == 0 ? p.job[0].rows : p.job[0].columns;
  const int64_t problem = blockIdx.x / tiles / p.heads;
  const int head = blockIdx.x / tiles % p.heads;
  const int first = blockIdx.x % tiles * 64;
  const T* output = base_of<T>(side.output, problem, head);
  const T* d_output = base_of<T>(side.d_output, problem, head);
  float* delta = side.delta + (problem * p.heads + head) * side.length;
  for (int row = first + threadIdx.x / kLanes; row < first + 64; row += 128 / kLanes) {
    const bool inside = row < side.length;
    float sum = 0;
    for (int column = threadIdx.x % kLanes * kVector; column < 128; column += kLanes * kVector) {
      alignas(16) T a[kVector], b[kVector];
      read_vector(a, output + row * side.output.time_stride, column, inside ? p.dv : 0,
                  side.output.vectors);
      read_vector(b, d_output + row * side.d_output.time_stride, column, inside ? p.dv : 0,
                  side.d_output.vectors);
      sum += dot<T, kLanes>(a, b);
    }
    if (inside && threadIdx.x % kLanes == 0) delta[row] = sum;
  }
}

// The last block of a head to come here sums the parts of the bias gradient, always in the same
// order.
__device__ inline void sum_lag_bias_if_last(const Problem& p, int head, int tiles) {
  __shared__ bool last;
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) {
    const auto blocks = static_cast<unsigned>(p.count * tiles * p.jobs);
    last = atomicAdd(&p.arrived[head], 1u) == blocks - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  const int lags = 2 * p.reach + 1;
  for (int64_t i = threadIdx.x; i < 2 * p.longest + 1; i += blockDim.x) {
    const int64_t lag = i - p.longest;
    float sum = 0;
    if (lag >= -p.reach && lag <= p.reach) {
      for (int64_t problem = 0; problem < p.count; problem++) {
        const float* part = p.d_lag_bias_parts + (problem * p.heads + head) * p.parts * lags;
        for (int j = 0; j < p.parts; j++) sum += __ldcg(part + int64_t{j} * lags + lag + p.reach);
      }
    }
    p.d_lag_bias[head * (2 * p.longest + 1) + i] = sum;
  }
}

// The gradients of kRows rows of a job, and in `part` [2 reach + 1] what they add to that of the
// bias, unless it is null.
template <class T, int kD, int kDv>
__device__ void differentiate_rows(const Problem& p, const Job& job, int64_t problem, int head,
                                   int block_first, float* part) {
  const int rows = job.rows.length, columns = job.columns.length;
  constexpr int kRows = kBackwardRows<T>, kWidth = kBackwardColumns<T, kD>;
  constexpr int kStages = kBackwardStages<T>;
  constexpr int kS = kStride<T, kD>, kSv = kStride<T, kDv>, kSl = kLagStride<T, kD>;
  const int warp = threadIdx.x / 32, g = lane_id() / 4, t = lane_id() % 4;

  DYNAMIC_SHARED(T, left);                              // [rows, d]
  T* d_output = left + kRows * kS;                      // [rows, dv]
  T* own_values = d_output + kRows * kSv;               // [rows, dv]
  T* right = own_values + kRows * kSv;                  // stages x [width, d]
  T* values = right + kStages * kWidth * kS;            // stages x [width, dv]
  T* d_right_output = values + kStages * kWidth * kSv;  // stages x [width, dv]
  float* d_s =
      reinterpret_cast<float*>(d_right_output + kStages * kWidth * kSv);  // [rows, width + 1]

  const T* right_base = base_of<T>(job.columns.similar, problem, head);
  const T* value_base = base_of<T>(job.columns.value, problem, head);
  const T* d_right_base = base_of<T>(job.columns.d_output, problem, head);
  auto load_columns = [&](int at, int stage) {
    load_rows<T, kD>(right + stage * kWidth * kS, job.columns.similar, right_base, at, kWidth,
                     columns, p.d);
    if (job.rows_attend) {
      load_rows<T, kDv>(values + stage * kWidth * kSv, job.columns.value, value_base, at, kWidth,
                        columns, p.dv);
    }
    if (job.columns_attend) {
      load_rows<T, kDv>(d_right_output + stage * kWidth * kSv, job.columns.d_output, d_right_base,
                        at, kWidth, columns, p.dv);
    }
    commit_copies();
  };

  int begin, end;
  column_range(p, block_first, kRows, columns, kWidth, begin, end);
  load_rows<T, kD>(left, job.rows.similar, base_of<T>(job.rows.similar, problem, head), block_first,
                   kRows, rows, p.d);
  if (job.rows_attend) {
    load_rows<T, kDv>(d_output, job.rows.d_output, base_of<T>(job.rows.d_output, problem, head),
                      block_first, kRows, rows, p.dv);
  }
  if (job.columns_attend) {
    load_rows<T, kDv>(own_values, job.rows.value, base_of<T>(job.rows.value, problem, head),
                      block_first, kRows, rows, p.dv);
  }
  load_columns(begin, 0);

  const int first = block_first + 16 * warp;
  const int64_t row_offset = (problem * p.heads + head) * rows;
  const int64_t column_offset = (problem * p.heads + head) * columns;
  float row_lse[2] = {0, 0}, row_delta[2] = {0, 0};
  for (int half = 0; half < 2; half++) {
    const int row = first + g + 8 * half;
    if (job.rows_attend && row < rows) {
      row_lse[half] = job.rows.lse[row_offset + row] * kLog2E;
      row_delta[half] = job.rows.delta[row_offset + row];
    }
  }

  const float* bias = bias_of(p, head);
  float d_left[kD / 8][4] = {}, d_value[kDv / 8][4] = {};
  int stage = 0;
  for (int at = begin; at < end; at += kWidth, stage ^= kStages - 1) {
    const bool more = at + kWidth < end;
    if (kStages == 2 && more) {
      load_columns(at + kWidth, stage ^ 1);
      wait_copies<1>();
    } else {
      wait_copies<0>();
    }
    __syncthreads();
    const T* tile_right = right + stage * kWidth * kS;
    float s[kWidth / 8][4] = {}, d[kWidth / 8][4] = {};
    multiply_nt<kD>(s, left + 16 * warp * kS, kS, tile_right, kS);
#pragma unroll
    for (int tile = 0; tile < kWidth / 8; tile++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const int row = first + g + i / 2 * 8, column = at + 8 * tile + 2 * t + i % 2;
        s[tile][i] = logit(p, job, bias_at(p, job, bias, column - row), s[tile][i], row, column);
      }
    }
    if (job.rows_attend) {
      multiply_nt<kDv>(d, d_output + 16 * warp * kSv, kSv, values + stage * kWidth * kSv, kSv);
#pragma unroll
      for (int tile = 0; tile < kWidth / 8; tile++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          d[tile][i] = probability(s[tile][i], row_lse[i / 2]) * (d[tile][i] - row_delta[i / 2]);
        }
      }
    }
    if (job.columns_attend) {
      const T* tile_d = d_right_output + stage * kWidth * kSv;
      float back[kWidth / 8][4] = {};
      multiply_nt<kDv>(back, own_values + 16 * warp * kSv, kSv, tile_d, kSv);
#pragma unroll
      for (int tile = 0; tile < kWidth / 8; tile++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
          const int column = at + 8 * tile + 2 * t + i;
          const bool inside = column < columns;
          const float lse = inside ? job.columns.lse[column_offset + column] * kLog2E : 0;
          const float delta = inside ? job.columns.delta[column_offset + column] : 0;
#pragma unroll
          for (int j = i; j < 4; j += 2) {
            s[tile][j] = probability(s[tile][j], lse);
            d[tile][j] = fmaf(s[tile][j], back[tile][j] - delta, d[tile][j]);
          }
        }
      }
#pragma unroll
      for (int tile = 0; tile < kWidth / 8; tile += 2) {
        multiply_nn(d_value, s[tile], s[tile + 1], tile_d + 8 * tile * kSv, kSv);
      }
    }
#pragma unroll
    for (int tile = 0; tile < kWidth / 8; tile += 2) {
      multiply_nn(d_left, d[tile], d[tile + 1], tile_right + 8 * tile * kS, kS);
    }
    if (part != nullptr) {
#pragma unroll
      for (int tile = 0; tile < kWidth / 8; tile++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
          d_s[(16 * warp + g + i / 2 * 8) * kSl + 8 * tile + 2 * t + i % 2] = d[tile][i];
        }
      }
    }
    __syncthreads();  // the columns are not read any more, and dS is complete
    if (part != nullptr) {
      // Each thread sums diagonals of this tile of dS; a lag stays with its block, so the order is
      // fixed.
      for (int i = threadIdx.x; i < kRows + kWidth - 1; i += blockDim.x) {
        const int diagonal = i - (kRows - 1);
        const int lag = job.sign * (at - block_first + diagonal);
        if (abs(lag) > p.reach) continue;
        float sum = 0;
        for (int row = max(0, -diagonal); row < min(kRows, kWidth - diagonal); row++) {
          sum += d_s[row * kSl + row + diagonal];
        }
        part[lag + p.reach] += sum;
      }
    }
    if (kStages == 1 && more) load_columns(at + kWidth, 0);
  }
  wait_copies<0>();
  store_rows<kD / 8, T>(d_left, job.rows.d_similar, p, problem, head, rows, first, p.d, p.scale,
                        p.scale);
  if (job.columns_attend) {
    store_rows<kDv / 8, T>(d_value, job.rows.d_value, p, problem, head, rows, first, p.dv, 1, 1);
  }
}

// Grid: (R * heads * tiles, jobs). Block: 2 threads per row of a tile. A block takes one tile of
// rows, or where it adds to the gradient of the bias every p.part_blocks-th of them, one after the
// other: their sum is then one part of that gradient.
template <class T, int kD, int kDv>
__global__ void __launch_bounds__(2 * kBackwardRows<T>, kMinBlocks<T>)
    blockwise_backward(const __grid_constant__ Problem p, int tiles) {
  const Job& job = p.job[blockIdx.y];
  const int block = blockIdx.x % tiles;
  const int64_t problem = blockIdx.x / tiles / p.heads;
  const int head = blockIdx.x / tiles % p.heads;
  // The bias gets what one of the two mirrored jobs sees, or what the queries see where each
  // direction has a similarity of its own: the first jobs.
  const bool with_bias =
      p.d_lag_bias_parts != nullptr && job.rows_attend && (!job.columns_attend || job.sign == 1);
  const int blocks = with_bias ? p.part_blocks : tiles;
  float* part = nullptr;  // [2 reach + 1]
  if (with_bias && block < blocks) {
    const int lags = 2 * p.reach + 1;
    part = p.d_lag_bias_parts +
           ((problem * p.heads + head) * p.parts + blockIdx.y * blocks + block) * lags;
    for (int i = threadIdx.x; i < lags; i += blockDim.x) part[i] = 0;
  }
  const int stop = block < blocks ? job.rows.length : 0;
#pragma unroll 1
  for (int first = block * kBackwardRows<T>; first < stop; first += blocks * kBackwardRows<T>) {
    differentiate_rows<T, kD, kDv>(p, job, problem, head, first, part);
  }
  if (p.arrived != nullptr) sum_lag_bias_if_last(p, head, tiles);
}

}  // namespace binaural::cross_attention::gpu
