// Forward: o = softmax(S) v for the rows of S and, where the similarity is shared, for its columns
// as well.
//
// With E = 2^(S − c), the rows' result is (E v_columns) / (E 1) and the columns' is (E^T v_rows) /
// (E^T 1): one exponential serves both, as long as no row or column lies so far below c that its
// exponentials would vanish. Otherwise each direction is computed separately, with a shift per
// query.
#pragma once

#include "cross_attention/cpu_tile.h"

namespace binaural::cross_attention::BINAURAL_ISA {

template <class T>
struct ForwardState {
  struct Header {
    bool separate_directions;  // no exponential serves both
    bool lags;                 // logits have a bias, or may be -inf
  };
  Header* header;
  struct {
    T* output;  // [length, padded(dv)], before the division
    T* sums;    // [length]
    T* shifts;  // [length], in units of log2
  } ears[2];
  int64_t bytes;

  ForwardState(const Call& call, void* memory) {
    Arena arena(memory);
    header = arena.take<Header>(1);
    for (int ear = 0; ear < 2; ++ear) {
      const int64_t length = call.ears[ear].length;
      ears[ear] = {arena.take<T>(length * padded<T>(call.dv)), arena.take<T>(length + kPanel<T>),
                   arena.take<T>(length)};
    }
    bytes = arena.used();
  }
};

template <class T>
struct ForwardScratch {
  T* rows;           // [kStripe, padded(d)]
  T* columns;        // the columns, transposed
  T* column_values;  // [kStripe, padded(dv)]
  T* row_values;     // [kStripe, padded(dv)]
  T* block;          // [rows, columns] of a block
  T* row_sums;       // [kMostBlockRows, lanes]
  int64_t bytes;

  ForwardScratch(const Call& call, void* memory) {
    Arena arena(memory);
    rows = arena.take<T>(kStripe * padded<T>(call.d));
    columns = arena.take<T>(kStripe * padded<T>(call.d));
    column_values = arena.take<T>(kStripe * padded<T>(call.dv));
    row_values = arena.take<T>(kStripe * padded<T>(call.dv));
    block = arena.take<T>(kBlockSize);
    row_sums = arena.take<T>(kMostBlockRows * kLanes<T>);
    bytes = arena.used();
  }
};

// Whether one block holds all keys of a query of that ear, so that its result can be divided and
// written to the output at once.
template <class T>
bool write_output(const Call& call, bool separate_directions, int ear) {
  if (!first_block_writes(call) || !holds_vectors<T>(call, call.dv)) return false;
  const bool rows = separate_directions || ear == both_directions(call).row_ear;
  const int64_t own = call.ears[ear].length, other = call.ears[1 - ear].length;
  const Block block = block_within(rows ? other : own);
  return rows ? other <= block.columns : own <= block.columns && other <= block.rows;
}

template <class T>
int64_t forward_state_bytes(const Call& call) {
  return ForwardState<T>(call, nullptr).bytes;
}

template <class T>
int64_t forward_scratch_bytes(const Call& call) {
  return ForwardScratch<T>(call, nullptr).bytes;
}

// An upper bound of |S| in units of log2, by Cauchy and Schwarz.
template <class T>
T largest_similarity(const Call& call, const Job& job, int64_t problem) {
  T norms = 0;
  with_storage<T>(call.storage, [&](auto storage) {
    using S = decltype(storage);
    norms = largest_square_norm<T>(
                matrix<S>(call, job.row_matched, problem, 0, job.rows.length, call.d)) *
            largest_square_norm<T>(
                matrix<S>(call, job.column_matched, problem, 0, job.columns.length, call.d));
  });
  const T scale = static_cast<T>(call.scale < 0 ? -call.scale : call.scale);
  return static_cast<T>(__builtin_sqrt(norms)) * scale * static_cast<T>(kLog2E) +
         static_cast<T>(call.largest_bias);
}

template <class T>
bool forward_prepare(const Call& call, int64_t problem, void* memory) {
  const ForwardState<T> state(call, memory);
  for (int ear = 0; ear < 2; ++ear) {
    const int64_t length = call.ears[ear].length;
    if (!first_block_writes(call)) {
      std::memset(state.ears[ear].output, 0, length * padded<T>(call.dv) * sizeof(T));
    }
    std::memset(state.ears[ear].sums, 0, (length + kPanel<T>)*sizeof(T));
    std::memset(state.ears[ear].shifts, 0, length * sizeof(T));
  }
  state.header->separate_directions = !call.shared;
  const auto in_safe_range = [&](const Job& job) {
    return largest_similarity<T>(call, job, problem) < kSafeRange<T>;
  };
  const bool safe =
      call.shared ? in_safe_range(both_directions(call))
                  : in_safe_range(one_direction(call, 0)) && in_safe_range(one_direction(call, 1));
  state.header->lags = call.lags[0] != nullptr || !safe;
  return safe;
}

template <class T>
void forward_maxima(const Call& call, int64_t problem, void* memory, int ear, int64_t stripe,
                    void* scratch) {
  const ForwardState<T> state(call, memory);
  const ForwardScratch<T> s(call, scratch);
  const Job job = one_direction(call, ear);
  const Range rows = stripe_of(job.rows, stripe);
  T* result = state.ears[ear].shifts + rows.begin;
  for (int64_t i = 0; i < rows.size; ++i) result[i] = -kInfinity<T>;
  for (int64_t other = 0; other < call.stripes; ++other) {
    const Range columns = stripe_of(job.columns, other);
    const Matched<T> matched(call, job, problem, false, rows, columns, s.rows, s.columns);
    for_blocks<T>(call, rows, columns, [&](int64_t i, int64_t height, int64_t j, int64_t width) {
      const T zeros[kMostBlockRows]{};
      for (int64_t l = 0; l < height * kLanes<T>; ++l) s.row_sums[l] = -kInfinity<T>;
      const T* lags = lags_at<T>(call, problem, ear, rows.begin + i, columns.begin + j);
      Prefetcher nothing;
      const auto run = [&](auto with_lags) {
        constexpr bool kLags = decltype(with_lags)::value;
        matched.multiply_block(call, i, height, j, width,
                               Maxima<T, kLags>({zeros, lags}, width, s.row_sums), nothing);
      };
      call.lags[0] == nullptr ? run(std::false_type{}) : run(std::true_type{});
      for (int64_t row = 0; row < height; ++row) {
        const T most = largest<T>(load<T>(s.row_sums + row * kLanes<T>));
        if (most > result[i + row]) result[i + row] = most;
      }
    });
  }
}

// Chooses the shifts after the maxima: one for all queries, if no maximum lies far below the
// largest.
template <class T>
void forward_choose_shifts(const Call& call, void* memory) {
  const ForwardState<T> state(call, memory);
  T lowest = kInfinity<T>, highest = -kInfinity<T>;
  for (int ear = 0; ear < 2; ++ear) {
    T* shifts = state.ears[ear].shifts;
    for (int64_t i = 0; i < call.ears[ear].length; ++i) {
      if (shifts[i] == -kInfinity<T>) {
        shifts[i] = 0;  // all keys are masked: every exponential is 0
        continue;
      }
      lowest = shifts[i] < lowest ? shifts[i] : lowest;
      highest = shifts[i] > highest ? shifts[i] : highest;
    }
  }
  if (!call.shared) return;
  state.header->separate_directions = !(highest - lowest < kSafeRange<T>);
  if (state.header->separate_directions || highest == -kInfinity<T>) return;
  for (int ear = 0; ear < 2; ++ear) {
    T* shifts = state.ears[ear].shifts;
    for (int64_t i = 0; i < call.ears[ear].length; ++i) shifts[i] = highest;
  }
}

// 1 / the sums of the exponentials of these queries; writes lse, their logarithms, for the
// backward.
template <class T>
void divide_sums(const Call& call, int64_t problem, const ForwardState<T>& state, int ear,
                 Range rows, T* inverse) {
  const auto& own = state.ears[ear];
  T* lse = static_cast<T*>(call.ears[ear].lse) + problem * call.ears[ear].length + rows.begin;
  for (int64_t i = 0; i < rows.size; i += kLanes<T>) {
    const int64_t count = rows.size - i < kLanes<T> ? rows.size - i : kLanes<T>;
    const Vec<T> total = load_some<T>(own.sums + rows.begin + i, count);
    const Vec<T> shift = load_some<T>(own.shifts + rows.begin + i, count);
    // A query whose keys are all masked has a sum of 0 and gets zeros.
    store<T>(inverse + i, total == Vec<T>{} ? Vec<T>{} : T(1) / total);
    store_some<T>(lse + i, shift * static_cast<T>(kLn2) + logarithm<T>(total), count);
  }
}

// With kInPlace, for a small problem, values are read without packing.
template <class T, bool kBoth, bool kLags, bool kInPlace = false>
void forward_pass(const Call& call, const Job& job, int64_t problem, const ForwardState<T>& state,
                  Range rows, Range columns, const ForwardScratch<T>& s) {
  const int64_t dv = padded<T>(call.dv);
  const Matched<T> matched(call, job, problem, kInPlace, rows, columns, s.rows, s.columns);
  const auto values = [&](const Ear& ear, Range range, T* packed) {
    if constexpr (kInPlace) {
      return rows_in_place<const T>(call, ear.value, problem, range.begin);
    } else {
      return packed_panels<T>(call, ear.value, problem, range, call.dv, packed);
    }
  };
  const auto column_values = values(job.columns, columns, s.column_values);
  std::remove_const_t<decltype(column_values)> row_values{};
  if (kBoth) row_values = values(job.rows, rows, s.row_values);
  const bool first_write = first_block_writes(call);
  const bool rows_write_output = write_output<T>(call, !kBoth, job.row_ear),
             columns_write_output = write_output<T>(call, !kBoth, 1 - job.row_ear);
  const Block block = first_block(rows, columns);
  const int64_t stride = block_within(columns.size).columns;
  Prefetcher fetch = prefetch<T>(
      call, problem, false,
      count_blocks(rows, columns) * (steps_of<T>(block.rows, block.columns, call.d) +
                                     steps_of<T>(block.rows, dv, block.columns) +
                                     (kBoth ? steps_of<T>(block.columns, dv, block.rows) : 0)));
  const auto& of_rows = state.ears[job.row_ear];
  const auto& of_columns = state.ears[1 - job.row_ear];
  for_blocks<T>(call, rows, columns, [&](int64_t i, int64_t height, int64_t j, int64_t width) {
    const int64_t row = rows.begin + i, column = columns.begin + j;
    std::memset(s.row_sums, 0, height * kLanes<T> * sizeof(T));
    matched.multiply_block(
        call, i, height, j, width,
        SummedExponentials<T, kLags, kBoth>(
            {of_rows.shifts + row, lags_at<T>(call, problem, job.row_ear, row, column), s.block,
             stride},
            width, s.row_sums, of_columns.sums + column),
        fetch);
    for_row_sums<T>(
        height,
        [&](int64_t k)
            __attribute__((always_inline)) { return load<T>(s.row_sums + k * kLanes<T>); },
        [&](int64_t k, Vec<T> sums) __attribute__((always_inline)) {
          T* at = of_rows.sums + row + k;
          if (k + kLanes<T> <= height) {
            store<T>(at, load<T>(at) + sums);
          } else {
            for (int64_t lane = 0; k + lane < height; ++lane) at[lane] += sums[lane];
          }
        });
    // Writes the output of these queries, divided, or adds to their accumulators.
    const auto finish = [&](int ear, Range queries, bool writes_output, bool is_first,
                            const auto& product) {
      if constexpr (!kInPlace) {
        if (!writes_output) {
          T* o = state.ears[ear].output + queries.begin * dv;
          return product(AddTo<T>{o, dv, first_write && is_first});
        }
      }
      T inverse[kMostBlockColumns];
      divide_sums(call, problem, state, ear, queries, inverse);
      const Rows<T> o = rows_in_place<T>(call, call.ears[ear].output, problem, queries.begin);
      product(ScaleTo<T>{o.data, o.stride, {inverse, 1}});
    };
    finish(job.row_ear, {row, height}, rows_write_output, j == 0, [&](const auto& epilogue) {
      multiply<T, false>(s.block, stride, height, column_values, j, width, dv, epilogue, fetch);
    });
    if (!kBoth) return;
    finish(1 - job.row_ear, {column, width}, columns_write_output, i == 0,
           [&](const auto& epilogue) {
             multiply<T, true>(s.block, stride, width, row_values, i, height, dv, epilogue, fetch);
           });
  });
}

template <class T>
void forward_tile(const Call& call, int64_t problem, void* memory, int64_t row_stripe,
                  int64_t column_stripe, void* scratch) {
  const ForwardState<T> state(call, memory);
  const ForwardScratch<T> s(call, scratch);
  const Range left = stripe_of(call.ears[0], row_stripe),
              right = stripe_of(call.ears[1], column_stripe);
  if (left.size == 0 || right.size == 0) return;
  const auto run = [&](auto with_lags) {
    constexpr bool kLags = decltype(with_lags)::value;
    if (state.header->separate_directions) {
      forward_pass<T, false, kLags>(call, one_direction(call, 0), problem, state, left, right, s);
      forward_pass<T, false, kLags>(call, one_direction(call, 1), problem, state, right, left, s);
    } else if (is_small<T>(call)) {
      forward_pass<T, true, kLags, true>(call, both_directions(call), problem, state, left, right,
                                         s);
    } else {
      forward_pass<T, true, kLags>(call, both_directions(call), problem, state, left, right, s);
    }
  };
  state.header->lags ? run(std::true_type{}) : run(std::false_type{});
}

template <class T>
void forward_finish(const Call& call, int64_t problem, void* memory, int ear, int64_t stripe) {
  const ForwardState<T> state(call, memory);
  if (write_output<T>(call, state.header->separate_directions, ear)) return;
  const Range rows = stripe_of(call.ears[ear], stripe);
  const auto& own = state.ears[ear];
  T inverse[kStripe];
  divide_sums(call, problem, state, ear, rows, inverse);
  with_storage<T>(call.storage, [&](auto storage) {
    using S = decltype(storage);
    write_rows<T>(own.output + rows.begin * padded<T>(call.dv), padded<T>(call.dv),
                  Factors<T>{inverse, 1},
                  matrix<S>(call, call.ears[ear].output, problem, rows.begin, rows.size, call.dv));
  });
}

}  // namespace binaural::cross_attention::BINAURAL_ISA
