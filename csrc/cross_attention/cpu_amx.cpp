// The CPU kernels on AMX, which multiplies tiles of bfloat16 sixteen times as fast as AVX-512
// multiplies floats: one problem as a whole, both directions from one similarity matrix.
//
// Forward and backward compute what cpu_forward.h and cpu_backward.h derive. Factors are rounded to
// bfloat16: the exponentials, in the forward not yet divided by their sums, and dS. Sums are in
// float, and sums of exponentials are of the rounded ones: weights then add up to 1, and a single
// key gets its value back unchanged. Subnormal numbers count as zero, products and sums included.
#include <algorithm>

#include "common/isa.h"
#include "cross_attention/cpu_kernel.h"

#if defined(BINAURAL_TILES)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")
#define BINAURAL_ISA amx
#define BINAURAL_VECTOR_BYTES 64
#define BINAURAL_AVX512
#define BINAURAL_AVX512_BF16
#define BINAURAL_TILE_ROWS 12
#include "cross_attention/cpu_amx_tiles.h"
#include "cross_attention/cpu_backward_parts.h"
#include "cross_attention/cpu_forward.h"

namespace binaural::cross_attention::BINAURAL_ISA {
namespace {

// The matrices of one problem.
struct ProblemMatrices {
  const Call& call;
  int64_t problem;

  int64_t length(int ear) const { return call.ears[ear].length; }
  Matrix<BFloat16> of(int ear, const View& view, int64_t width) const {
    return matrix<BFloat16>(call, view, problem, 0, length(ear), width);
  }
  Matrix<BFloat16> q(int ear) const { return of(ear, call.ears[ear].query, call.d); }
  Matrix<BFloat16> v(int ear) const { return of(ear, call.ears[ear].value, call.dv); }
  Matrix<BFloat16> o(int ear) const { return of(ear, call.ears[ear].output, call.dv); }
  Matrix<BFloat16> grad_o(int ear) const { return of(ear, call.ears[ear].d_output, call.dv); }
  Matrix<BFloat16> dq(int ear) const { return of(ear, call.ears[ear].d_query, call.d); }
  Matrix<BFloat16> dv(int ear) const { return of(ear, call.ears[ear].d_value, call.dv); }
  float* lse(int ear) const {
    return static_cast<float*>(call.ears[ear].lse) + problem * length(ear);
  }
};

int64_t whole(int64_t length) { return blocks(length) * kBlock; }

// Values of an operand: of `length` rows and `width` columns, all padded.
int64_t values(int64_t length, int64_t width) { return whole(length) * whole(width); }

// v with 0 in the lanes at or beyond `columns`, counted from `column`.
BINAURAL_INLINE Vector only_columns(Vector v, int64_t column, int64_t columns) {
  return columns - column >= kTile ? v : beyond<float>(column, columns) ? Vector{} : v;
}

// 2^(logits − shift); 0 beyond the last column.
struct Exponential {
  float scale, shift;
  const float* lags;  // by column − row
  int64_t columns;

  BINAURAL_INLINE Vector operator()(const float* block, int64_t row, int64_t column) const {
    const Vector addend = load<float>(lags + column - row) - shift;
    const Vector e = exp2<float>(load<float>(block + row * kBlock + column) * scale + addend);
    return only_columns(e, column, columns);
  }
};

Exponential exponential(const Call& call, int64_t problem, float shift, int64_t row,
                        int64_t column) {
  return {static_cast<float>(call.scale * kLog2E), shift,
          lags_at<float>(call, problem, 0, row, column), call.ears[1].length - column};
}

struct ForwardTileScratch {
  BFloat16 *rows, *columns;              // queries of the left, and of the right transposed
  BFloat16 *row_values, *column_values;  // of the left, of the right
  BFloat16 *of_rows, *of_columns;        // E, E^T
  float *row_sums, *column_sums, *inverse;
  int64_t bytes;

  ForwardTileScratch(const Call& call, void* memory) {
    Arena arena(memory);
    const int64_t n = call.ears[0].length, m = call.ears[1].length;
    rows = arena.take<BFloat16>(values(n, call.d));
    columns = arena.take<BFloat16>(values(m, call.d));
    row_values = arena.take<BFloat16>(values(n, call.dv));
    column_values = arena.take<BFloat16>(values(m, call.dv));
    of_rows = arena.take<BFloat16>(values(n, m));
    of_columns = arena.take<BFloat16>(values(m, n));
    row_sums = arena.take<float>(whole(n) * kTile);
    column_sums = arena.take<float>(whole(m));
    inverse = arena.take<float>(whole(std::max(n, m)));
    bytes = arena.used();
  }
};

// 1 / sums, and the logarithms of sums.
void divide(const float* sums, int64_t count, float* inverse, float* lse) {
  for (int64_t i = 0; i < count; i += kTile) {
    const int64_t left = std::min(count - i, kTile);
    const Vector total = load_some<float>(sums + i, left);
    store_some<float>(inverse + i, 1.0f / total, left);
    store_some<float>(lse + i, logarithm<float>(total), left);
  }
}

bool forward(const Call& call, int64_t problem, void* memory) {
  if (!(largest_similarity<float>(call, both_directions(call), problem) < kSafeRange<float>)) {
    return false;
  }
  const ProblemMatrices p{call, problem};
  const ForwardTileScratch s(call, memory);
  const int64_t n = p.length(0), m = p.length(1), d = whole(call.d);
  pack_left(p.q(0), s.rows, d);
  pack_right_transposed(p.q(1), s.columns);
  pack_right(p.v(0), s.row_values);
  pack_right(p.v(1), s.column_values);
  std::memset(s.row_sums, 0, n * kTile * sizeof(float));
  std::memset(s.column_sums, 0, whole(m) * sizeof(float));
  Prefetcher fetch = prefetch<float>(call, problem, false, n * blocks(m));
  alignas(64) BlockSums blocks_of_s[2];
  for_blocks_of(
      n, m,
      [&](int64_t i, int64_t j, int slot) {
        multiply({s.rows, d}, i, n, {s.columns, blocks(call.d)}, j, m, blocks_of_s[slot]);
      },
      [&](int64_t i, int64_t j, int slot) __attribute__((always_inline)) {
        const Exponential exponential = amx::exponential(call, problem, 0, i, j);
        round_block(std::min(n - i, kBlock), std::min(m - j, kBlock), s.of_rows + i * whole(m) + j,
                    whole(m), s.of_columns + j * whole(n) + i, whole(n),
                    [&](int64_t row, int64_t column) __attribute__((always_inline)) {
                      const Vector e = rounded(exponential(blocks_of_s[slot], row, column));
                      float *of_row = s.row_sums + (i + row) * kTile,
                            *of_column = s.column_sums + j + column;
                      store<float>(of_row, load<float>(of_row) + e);
                      store<float>(of_column, load<float>(of_column) + e);
                      if (column == 0) fetch();
                      return Weighted{e, e};
                    });
      });
  const auto inverse = [&](int64_t row) { return s.inverse[row]; };
  divide(s.column_sums, m, s.inverse, p.lse(1));
  write_product({s.of_columns, whole(n)}, {s.row_values, blocks(n)}, inverse, p.o(1), blocks_of_s);
  for_row_sums<float>(
      n, [&](int64_t row) { return load<float>(s.row_sums + row * kTile); },
      [&](int64_t row, Vector sums) { store<float>(s.row_sums + row, sums); });
  divide(s.row_sums, n, s.inverse, p.lse(0));
  write_product({s.of_rows, whole(m)}, {s.column_values, blocks(m)}, inverse, p.o(0), blocks_of_s);
  return true;
}

struct BackwardTileScratch {
  BFloat16 *rows, *columns;             // queries of the left, and of the right transposed
  BFloat16 *row_grads, *columns_v;      // do of the left, and v of the right transposed
  BFloat16 *rows_v, *column_grads;      // v of the left, and do of the right transposed
  BFloat16 *right[2], *right_grads[2];  // queries and do of either ear, for products over time
  BFloat16 *p_rows, *p_columns;         // Q, P^T
  BFloat16 *ds_rows, *ds_columns;       // dS, dS^T
  float *weights[2], *deltas[2];        // a and a δ, b and b δ
  float* lags;                          // by column − row + n + kBlock
  int64_t bytes;

  BackwardTileScratch(const Call& call, void* memory) {
    Arena arena(memory);
    const int64_t n = call.ears[0].length, m = call.ears[1].length;
    rows = arena.take<BFloat16>(values(n, call.d));
    columns = arena.take<BFloat16>(values(m, call.d));
    for (BFloat16** piece : {&row_grads, &rows_v})
      *piece = arena.take<BFloat16>(values(n, call.dv));
    for (BFloat16** piece : {&columns_v, &column_grads}) {
      *piece = arena.take<BFloat16>(values(m, call.dv));
    }
    for (int ear = 0; ear < 2; ++ear) {
      right[ear] = arena.take<BFloat16>(values(ear == 0 ? n : m, call.d));
      right_grads[ear] = arena.take<BFloat16>(values(ear == 0 ? n : m, call.dv));
      weights[ear] = arena.take<float>(whole(ear == 0 ? n : m) + kTile);
      deltas[ear] = arena.take<float>(whole(ear == 0 ? n : m) + kTile);
    }
    for (BFloat16** piece : {&p_rows, &ds_rows}) *piece = arena.take<BFloat16>(values(n, m));
    for (BFloat16** piece : {&p_columns, &ds_columns}) *piece = arena.take<BFloat16>(values(m, n));
    lags = arena.take<float>(whole(n) + whole(m) + 3 * kBlock);
    bytes = arena.used();
  }
};

// Adds the diagonals of a block [rows, kBlock] to `total`, by column − row; `tiles` tiles of its
// columns are filled.
void add_diagonals(const float* block, int64_t rows, int tiles, float* total) {
  // The sums are shifted by a lane per row, so that each stays in the lane of its lag.
  constexpr auto kAll = std::make_integer_sequence<int, kTile>{};
  Vector sums[4]{};
  for (int64_t row = 0; row < rows; ++row) {
    for (int i = 3; i > 0; --i) sums[i] = left_of<float>(sums[i - 1], sums[i], kAll);
    sums[0] = left_of<float>(Vector{}, sums[0], kAll);
    sums[0] += load<float>(block + row * kBlock);
    if (tiles > 1) sums[1] += load<float>(block + row * kBlock + kTile);
  }
  for (int i = 0; i < 4; ++i) {
    float* to = total - (rows - 1) + i * kTile;
    store<float>(to, load<float>(to) + sums[i]);
  }
}

bool backward(const Call& call, int64_t problem, void* memory) {
  const LogSums<float> sums = log_sums<float>(call, problem);
  if (!sums.in_safe_range || !sums.finite) return false;
  const ProblemMatrices p{call, problem};
  const BackwardTileScratch s(call, memory);
  const int64_t n = p.length(0), m = p.length(1), d = whole(call.d), dv = whole(call.dv);
  pack_left(p.q(0), s.rows, d);
  pack_right_transposed(p.q(1), s.columns);
  pack_left(p.grad_o(0), s.row_grads, dv);
  pack_right_transposed(p.v(1), s.columns_v);
  pack_left(p.v(0), s.rows_v, dv);
  pack_right_transposed(p.grad_o(1), s.column_grads);
  for (int ear = 0; ear < 2; ++ear) {
    pack_right(p.q(ear), s.right[ear]);
    pack_right(p.grad_o(ear), s.right_grads[ear]);
    const int64_t length = p.length(ear);
    weights_of<float>(p.lse(ear), sums.shift, length, s.weights[ear]);
    // A vector also reads weights beyond the last one, which must not be infinite: 0 times that is
    // NaN.
    std::memset(s.weights[ear] + length, 0, (whole(length) - length) * sizeof(float));
    deltas_of<float>(p.grad_o(ear), p.o(ear), Factors<float>{s.weights[ear], 1}, s.deltas[ear]);
  }
  float* lags = s.lags + n + kBlock;
  if (call.lag_gradients != nullptr) {
    std::memset(s.lags, 0, (whole(n) + whole(m) + 3 * kBlock) * sizeof(float));
  }
  const auto one = [](int64_t) { return 1.0f; };
  const auto scale = [&](int64_t) { return static_cast<float>(call.scale); };
  Prefetcher fetch = prefetch<float>(call, problem, true, 2 * n * blocks(m));
  // S, do v^T of the rows, v do^T of the columns.
  alignas(64) BlockSums blocks_of_s[2], blocks_of_rows[2], blocks_of_columns[2];
  for_blocks_of(
      n, m,
      [&](int64_t i, int64_t j, int slot) {
        multiply({s.rows, d}, i, n, {s.columns, blocks(call.d)}, j, m, blocks_of_s[slot]);
        multiply({s.row_grads, dv}, i, n, {s.columns_v, blocks(call.dv)}, j, m,
                 blocks_of_rows[slot]);
        multiply({s.rows_v, dv}, i, n, {s.column_grads, blocks(call.dv)}, j, m,
                 blocks_of_columns[slot]);
      },
      [&](int64_t i, int64_t j, int slot) __attribute__((always_inline)) {
        const int64_t height = std::min(n - i, kBlock), width = std::min(m - j, kBlock);
        const auto round = [&](BFloat16* of_rows, BFloat16* of_columns, auto&& weighted)
                               __attribute__((always_inline)) {
                                 round_block(height, width, of_rows + i * whole(m) + j, whole(m),
                                             of_columns + j * whole(n) + i, whole(n), weighted);
                               };
        const float *row_weights = s.weights[0] + i, *column_weights = s.weights[1] + j;
        const float *row_deltas = s.deltas[0] + i, *column_deltas = s.deltas[1] + j;
        float* block = blocks_of_s[slot];
        const Exponential exponential = amx::exponential(call, problem, sums.shift, i, j);
        round(s.p_rows, s.p_columns,
              [&](int64_t row, int64_t column) __attribute__((always_inline)) {
                const Vector e = exponential(block, row, column);
                store<float>(block + row * kBlock + column, e);
                if (column == 0) fetch();
                return Weighted{e * load<float>(column_weights + column), e * row_weights[row]};
              });
        round(s.ds_rows, s.ds_columns,
              [&](int64_t row, int64_t column) __attribute__((always_inline)) {
                const int64_t at = row * kBlock + column;
                const Vector of_row =
                    load<float>(blocks_of_rows[slot] + at) * row_weights[row] - row_deltas[row];
                const Vector of_column = load<float>(blocks_of_columns[slot] + at) *
                                             load<float>(column_weights + column) -
                                         load<float>(column_deltas + column);
                // E is 0 beyond the last column, but its factor there may be NaN.
                const Vector ds =
                    only_columns(load<float>(block + at) * (of_row + of_column), column, width);
                store<float>(block + at, ds);
                if (column == 0) fetch();
                return Weighted{ds, ds};
              });
        if (call.lag_gradients != nullptr) {
          add_diagonals(block, height, tiles_of(width), lags + j - i);
        }
      });
  write_product({s.p_rows, whole(m)}, {s.right_grads[1], blocks(m)}, one, p.dv(0), blocks_of_s);
  write_product({s.ds_rows, whole(m)}, {s.right[1], blocks(m)}, scale, p.dq(0), blocks_of_s);
  write_product({s.p_columns, whole(n)}, {s.right_grads[0], blocks(n)}, one, p.dv(1), blocks_of_s);
  write_product({s.ds_columns, whole(n)}, {s.right[0], blocks(n)}, scale, p.dq(1), blocks_of_s);
  if (call.lag_gradients != nullptr) {
    std::memcpy(static_cast<float*>(call.lag_gradients) + problem * (n + m - 1), lags - (n - 1),
                (n + m - 1) * sizeof(float));
  }
  return true;
}

bool covers(const Call& call) {
  return call.storage == Storage::kBFloat16 && call.stripes == 1 && call.shared &&
         first_block_writes(call) && call.ears[0].length > 0 && call.ears[1].length > 0 &&
         // A bias of -inf masks pairs, which only the other kernels can; so is a large bias left to
         // them.
         call.largest_bias < kSafeRange<float>;
}

int64_t forward_bytes(const Call& call) { return ForwardTileScratch(call, nullptr).bytes; }
int64_t backward_bytes(const Call& call) { return BackwardTileScratch(call, nullptr).bytes; }

// All eight tile registers with 16 rows of 64 bytes.
struct alignas(64) TileLayout {
  uint8_t palette = 1, start = 0, reserved[14]{};
  uint16_t row_bytes[16]{64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16]{16, 16, 16, 16, 16, 16, 16, 16};
};
static_assert(sizeof(TileLayout) == sizeof(TileRegisters));

void open(TileRegisters& before) {
  const TileLayout layout;
  asm volatile("sttilecfg %0" : "=m"(before));
  asm volatile("ldtilecfg %0" ::"m"(layout));
}
void close(const TileRegisters& before) { asm volatile("ldtilecfg %0" ::"m"(before)); }

}  // namespace
}  // namespace binaural::cross_attention::BINAURAL_ISA

namespace binaural::cross_attention {
const TileKernels kernels_amx = {.covers = amx::covers,
                                 .forward_bytes = amx::forward_bytes,
                                 .forward = amx::forward,
                                 .backward_bytes = amx::backward_bytes,
                                 .backward = amx::backward,
                                 .open = amx::open,
                                 .close = amx::close};
}
#endif
