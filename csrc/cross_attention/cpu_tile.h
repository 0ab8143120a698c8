// One block of the similarity matrix and its exponentials.
#pragma once

#include "cross_attention/cpu_pack.h"

namespace binaural::cross_attention::BINAURAL_ISA {

// A block of the similarity matrix stays in the first-level cache while every product reads it.
constexpr int64_t kBlockSize = 4096;
constexpr int64_t kMostBlockRows = 64;
constexpr int64_t kMostBlockColumns = 128;
struct Block {
  int64_t rows, columns;
};

// The largest block of a matrix of that many columns. The fewer they are, the more rows fit, and
// the fewer blocks add to one result.
inline Block block_within(int64_t columns) {
  return columns <= kBlockSize / kMostBlockRows
             ? Block{kMostBlockRows, kBlockSize / kMostBlockRows}
             : Block{kBlockSize / kMostBlockColumns, kMostBlockColumns};
}

template <class T>
constexpr T kInfinity = static_cast<T>(__builtin_inf());
constexpr double kLog2E = 1.4426950408889634074;
constexpr double kLn2 = 0.69314718055994530942;

// Exponentials between 2^-range and 2^range, and their products, neither overflow nor become
// subnormal.
template <class T>
constexpr T kSafeRange = std::is_same_v<T, float> ? 64 : 400;

// One similarity matrix: its rows attend to its columns, and its columns to its rows too if `both`.
struct Job {
  int row_ear;
  bool both;
  const Ear& rows;
  const Ear& columns;
  const View& row_matched;  // queries, or keys: their products are the similarity
  const View& column_matched;
};

// Rows of `ear` attend to the other ear.
inline Job one_direction(const Call& call, int ear) {
  const Ear &rows = call.ears[ear], &columns = call.ears[1 - ear];
  return {ear, false, rows, columns, rows.query, columns.key};
}

inline Job both_directions(const Call& call) {
  const Ear &rows = call.ears[0], &columns = call.ears[1];
  return {0, true, rows, columns, rows.query, columns.query};
}

struct Range {
  int64_t begin, size;
};

inline Range stripe_of(const Ear& ear, int64_t stripe) {
  const int64_t begin = stripe * kStripe;
  const int64_t rest = ear.length - begin;
  return {begin, rest < 0 ? 0 : rest < kStripe ? rest : kStripe};
}

// Calls f(row, rows, column, columns) for every block of rows x columns, counted from the tile's
// corner, that has a pair within max_lag. Columns start at a panel.
template <class T, class F>
BINAURAL_INLINE void for_blocks(const Call& call, Range rows, Range columns, F&& f) {
  const Block block = block_within(columns.size);
  for (int64_t i = 0; i < rows.size; i += block.rows) {
    const int64_t count = rows.size - i < block.rows ? rows.size - i : block.rows;
    // The columns that any of these rows may match.
    const int64_t row = rows.begin + i - columns.begin;
    int64_t first = row - call.max_lag, end = row + count + call.max_lag;
    first = first < 0 ? 0 : first / kPanel<T> * kPanel<T>;
    end = (end + kPanel<T> - 1) / kPanel<T> * kPanel<T>;
    end = end < columns.size ? end : columns.size;
    for (int64_t j = first; j < end; j += block.columns) {
      f(i, count, j, end - j < block.columns ? end - j : block.columns);
    }
  }
}

// Whether the first block of each row and column can write its results instead of adding them, so
// that accumulators need not be cleared: there is one tile, and the band skips no block.
inline bool first_block_writes(const Call& call) {
  return call.stripes == 1 && call.max_lag >= call.ears[0].length + call.ears[1].length;
}

// Whether results of that width can be written to the outputs without accumulators: the rows there
// are whole vectors of the compute type.
template <class T>
bool holds_vectors(const Call& call, int64_t width) {
  constexpr Storage kWide = std::is_same_v<T, float> ? Storage::kFloat32 : Storage::kFloat64;
  return call.storage == kWide && width % kLanes<T> == 0;
}

// The rows of an input or an output, from the first on.
template <class T>
Rows<T> rows_in_place(const Call& call, const View& view, int64_t problem, int64_t first) {
  const Matrix<T> m = matrix<T>(call, view, problem, first, 0, 0);
  return {m.data, m.stride};
}

// Whether a problem is so small that packing its operands would take as long as the products: one
// panel, whose rows can be read and written in place. It is a single block then, and all its
// results go to the outputs at once.
template <class T>
bool is_small(const Call& call) {
  return first_block_writes(call) && call.ears[0].length <= kPanel<T> &&
         call.ears[1].length <= kPanel<T> && holds_vectors<T>(call, call.d) &&
         holds_vectors<T>(call, call.dv);
}

// Packs rows as they are for the left operand of a product.
template <class T>
Rows<const T> packed_rows(const Call& call, const View& view, int64_t problem, Range rows,
                          int64_t width, T* to) {
  const T one = 1;
  with_storage<T>(call.storage, [&](auto storage) {
    pack_rows<T>(matrix<decltype(storage)>(call, view, problem, rows.begin, rows.size, width),
                 Factors<T>{&one, 0}, to, padded<T>(width));
  });
  return {to, padded<T>(width)};
}

// Packs rows in panels for the right operand of a product.
template <class T>
Panels<T> packed_panels(const Call& call, const View& view, int64_t problem, Range rows,
                        int64_t width, T* to) {
  const T one = 1;
  with_storage<T>(call.storage, [&](auto storage) {
    pack_panels<T>(matrix<decltype(storage)>(call, view, problem, rows.begin, rows.size, width),
                   Factors<T>{&one, 0}, to);
  });
  return {to, rows.size};
}

// Packs rows transposed, all times a factor, for the right operand of a product whose inner index
// is the channel.
template <class T>
Panels<T> packed_transposed(const Call& call, const View& view, int64_t problem, Range rows,
                            int64_t width, T factor, T* to) {
  with_storage<T>(call.storage, [&](auto storage) {
    pack_transposed<T>(matrix<decltype(storage)>(call, view, problem, rows.begin, rows.size, width),
                       Factors<T>{&factor, 0}, to, padded<T>(width), 0);
  });
  return {to, padded<T>(width)};
}

// The factors of the similarity: rows, in place or packed; columns, transposed and scaled to units
// of log2.
template <class T>
struct Matched {
  Rows<const T> rows;
  Panels<T> columns;

  Matched(const Call& call, const Job& job, int64_t problem, bool in_place, Range row_range,
          Range column_range, T* packed, T* transposed)
      : rows(in_place ? rows_in_place<const T>(call, job.row_matched, problem, row_range.begin)
                      : packed_rows<T>(call, job.row_matched, problem, row_range, call.d, packed)),
        columns(packed_transposed<T>(call, job.column_matched, problem, column_range, call.d,
                                     static_cast<T>(call.scale * kLog2E), transposed)) {}

  // S of a block, finished by the epilogue.
  template <class Epilogue, class Between>
  void multiply_block(const Call& call, int64_t i, int64_t height, int64_t j, int64_t width,
                      const Epilogue& epilogue, Between& between) const {
    multiply<T, false>(rows.data + i * rows.stride, rows.stride, height,
                       Panels<T>{columns.data + j * columns.depth, columns.depth}, 0, call.d,
                       padded<T>(width), epilogue, between);
  }
};

// Prefetches the results of the next problem and the operands of the one after it: those of the
// next would arrive too late.
template <class T>
Prefetcher prefetch(const Call& call, int64_t problem, bool backward, int64_t steps) {
  constexpr int64_t kAhead = 2, kWrittenAhead = 1;
  Prefetcher next;
  if (call.stripes > 1) return next;
  const int64_t element =
      call.storage == Storage::kFloat32 || call.storage == Storage::kFloat64 ? sizeof(T) : 2;
  const auto written = [&](const Ear& ear, const View& view, int64_t width) {
    if (problem + kWrittenAhead >= call.r * call.heads) return;
    next.add(call, view, problem + kWrittenAhead, ear.length, width, element);
  };
  for (const Ear& ear : call.ears) {
    if (backward) {
      written(ear, ear.d_query, call.d);
      written(ear, ear.d_value, call.dv);
      if (!call.shared) written(ear, ear.d_key, call.d);
    } else {
      written(ear, ear.output, call.dv);
    }
    if (problem + kAhead >= call.r * call.heads) continue;
    next.add(call, ear.query, problem + kAhead, ear.length, call.d, element);
    next.add(call, ear.value, problem + kAhead, ear.length, call.dv, element);
    if (!call.shared) next.add(call, ear.key, problem + kAhead, ear.length, call.d, element);
    if (!backward) continue;
    next.add(call, ear.output, problem + kAhead, ear.length, call.dv, element);
    next.add(call, ear.d_output, problem + kAhead, ear.length, call.dv, element);
  }
  next.plan(steps);
  return next;
}

// The first and largest block of for_blocks for these rows and columns.
inline Block first_block(Range rows, Range columns) {
  const Block most = block_within(columns.size);
  return {rows.size < most.rows ? rows.size : most.rows,
          columns.size < most.columns ? columns.size : most.columns};
}

// How many blocks for_blocks makes at most.
inline int64_t count_blocks(Range rows, Range columns) {
  const Block most = block_within(columns.size);
  return ((rows.size + most.rows - 1) / most.rows) *
         ((columns.size + most.columns - 1) / most.columns);
}

// The lags of any block where there is neither a bias nor a band.
template <class T>
constexpr T kNoLags[kMostBlockRows + kMostBlockColumns + 2 * kPanel<T>]{};

// By lag, from the lag of row 0 and column 0 on; zeros where every lag is alike.
template <class T>
const T* lags_at(const Call& call, int64_t problem, int row_ear, int64_t row, int64_t column) {
  if (call.lags[row_ear] == nullptr) return kNoLags<T> + kMostBlockRows;
  const int64_t n = call.ears[row_ear].length, m = call.ears[1 - row_ear].length;
  return static_cast<const T*>(call.lags[row_ear]) +
         problem % call.heads * (n + m - 1 + kLagPadding) + n - 1 + column - row;
}

// Lanes at or beyond `columns`, counted from `column`.
template <class T>
BINAURAL_INLINE Ints<T> beyond(int64_t column, int64_t columns) {
  using Integer = std::remove_reference_t<decltype(Ints<T>{}[0])>;
  return lane_numbers<T>() >= Ints<T>{} + static_cast<Integer>(columns - column);
}

// Logits from a register tile of products, in units of log2: the bias of the lag is added and the
// shift subtracted. Both only at the end: accumulators that begin with them would round every
// partial sum to their magnitude. Pairs may be masked only with kLags.
template <class T, bool kLags>
struct Logits : FromZero<T> {
  const T* shifts;  // [rows]
  const T* lags;    // by column − row, see Call::lags

  Logits(const T* shifts, const T* lags) : shifts(shifts), lags(lags) {}

  // Whether pairs are masked: by max_lag, or since the logit is -inf. The shift is left out: it is
  // NaN for a query with NaN among its logits.
  BINAURAL_INLINE static Ints<T> masked(Vec<T> bias, Vec<T> logit) {
    return (bias == broadcast<T>(kMaskedLag<T>)) | (logit == broadcast<T>(-kInfinity<T>));
  }
  BINAURAL_INLINE Vec<T> bias_at(int64_t row, int64_t column) const {
    return load<T>(lags + column - row);
  }
  // The logits of one vector, less the shift; -inf where a pair is masked.
  BINAURAL_INLINE Vec<T> logits(Vec<T> product, int64_t row, int64_t column) const {
    if (!kLags) return product - shifts[row];
    const Vec<T> bias = bias_at(row, column), logit = product + bias;
    return masked(bias, logit) ? broadcast<T>(-kInfinity<T>) : logit - shifts[row];
  }
  // 2^(logits − shift); with kLags exactly 0 where a pair is masked, and only there.
  BINAURAL_INLINE Vec<T> exponential(Vec<T> product, int64_t row, int64_t column) const {
    if (!kLags) return exp2<T>(product - shifts[row]);
    const Vec<T> bias = bias_at(row, column), logit = product + bias;
    return masked(bias, logit) ? Vec<T>{} : exp2<T>(logit - shifts[row]);
  }
};

// Stores 2^logits.
template <class T, bool kLags>
struct Exponentials : Logits<T, kLags> {
  T* to;  // [rows, stride]
  int64_t stride;

  Exponentials(const T* shifts, const T* lags, T* to, int64_t stride)
      : Logits<T, kLags>(shifts, lags), to(to), stride(stride) {}

  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      acc[i][v] = this->exponential(acc[i][v], row + i, column + v * kLanes<T>);
      store<T>(to + (row + i) * stride + column + v * kLanes<T>, acc[i][v]);
    });
  }
};

// The same, with the sums of rows and, if kBoth, of columns. Padding columns do not count.
template <class T, bool kLags, bool kBoth>
struct SummedExponentials : Exponentials<T, kLags> {
  int64_t columns;
  T* row_sums;     // [rows, lanes]
  T* column_sums;  // [columns]

  SummedExponentials(const Exponentials<T, kLags>& exponentials, int64_t columns, T* row_sums,
                     T* column_sums)
      : Exponentials<T, kLags>(exponentials),
        columns(columns),
        row_sums(row_sums),
        column_sums(column_sums) {}

  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    Exponentials<T, kLags>::end(row, column, acc);
    if (column + kVectors * kLanes<T> > columns) {
      for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
        acc[i][v] = beyond<T>(column + v * kLanes<T>, columns) ? Vec<T>{} : acc[i][v];
      });
    }
    Vec<T> of_columns[kVectors]{};
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      T* at = row_sums + (row + i) * kLanes<T>;
      store<T>(at, load<T>(at) + acc[i][v]);
      of_columns[v] += acc[i][v];
    });
    if (kBoth) {
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) {
        T* at = column_sums + column + v * kLanes<T>;
        store<T>(at, load<T>(at) + of_columns[v]);
      }
    }
  }
};

// The largest logit of each row. NaN is skipped: a query with NaN among its logits gets NaN,
// whatever its shift.
template <class T, bool kLags>
struct Maxima : Logits<T, kLags> {
  int64_t columns;
  T* maxima;  // [rows, lanes]

  Maxima(const Logits<T, kLags>& logits, int64_t columns, T* maxima)
      : Logits<T, kLags>(logits), columns(columns), maxima(maxima) {}

  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      const int64_t first = column + v * kLanes<T>;
      const Vec<T> logits = beyond<T>(first, columns) ? broadcast<T>(-kInfinity<T>)
                                                      : this->logits(acc[i][v], row + i, first);
      T* at = maxima + (row + i) * kLanes<T>;
      store<T>(at, maximum<T>(logits, load<T>(at)));
    });
  }
};

}  // namespace binaural::cross_attention::BINAURAL_ISA
