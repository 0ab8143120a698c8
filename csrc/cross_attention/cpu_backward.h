// Backward: computes the similarity again, from queries, keys and the saved lse.
//
// With P and Q the softmax of S over rows and over columns, and δ = Σ do · o of each query,
//
//   dS = P ∘ (do_rows v_columns^T − δ_rows) + Q ∘ (v_rows do_columns^T − δ_columns).
//
// Both are multiples of one exponential E = 2^(S − c): P = a E with a = 2^(c − lse_rows) per row, Q
// = E b with b = 2^(c − lse_columns) per column. So, with a and b moved into the small operands,
//
//   dS = E ∘ ([a do_rows | v_rows] [v_columns | b do_columns]^T − a δ_rows − b δ_columns),
//
// one product of inner size 2 dv; dv_columns = E^T (a do_rows), dv_rows = E (b do_columns),
// d_rows = scale dS columns, d_columns = scale dS^T rows. Where a or b would overflow, each
// direction is computed separately, with c = lse_rows, a = 1 and without the terms of the columns.
#pragma once

#include "cross_attention/cpu_backward_in_place.h"

namespace binaural::cross_attention::BINAURAL_ISA {

template <class T>
struct BackwardScratch {
  T *rows, *row_panels;             // of [kStripe, padded(d)]: row-major, and in panels times scale
  T *columns, *column_panels;       // transposed, and in panels times scale
  T* left_factor;                   // [kStripe, 2 padded(dv)]: a do_rows | v_rows
  T* right_factor;                  // the other factor, transposed: v_columns | b do_columns
  T* row_grads;                     // a do_rows, in panels
  T* column_grads;                  // b do_columns, in panels
  T *row_weights, *column_weights;  // a, b
  T *row_deltas, *column_deltas;    // a δ, b δ
  T* row_shifts;
  T* block;  // [rows, columns] of a block
  T* lags;
  int64_t bytes;

  BackwardScratch(const Call& call, void* memory) {
    Arena arena(memory);
    const int64_t d = kStripe * padded<T>(call.d), dv = kStripe * padded<T>(call.dv);
    for (T** piece : {&rows, &row_panels, &columns, &column_panels}) *piece = arena.take<T>(d);
    for (T** piece : {&left_factor, &right_factor}) *piece = arena.take<T>(2 * dv);
    for (T** piece : {&row_grads, &column_grads}) *piece = arena.take<T>(dv);
    for (T** piece : {&row_weights, &column_weights, &row_deltas, &column_deltas, &row_shifts}) {
      *piece = arena.take<T>(kStripe + kPanel<T>);
    }
    block = arena.take<T>(kBlockSize);
    lags = arena.take<T>(kLagScratch<T>);
    bytes = arena.used();
  }
};

template <class T>
int64_t backward_state_bytes(const Call& call) {
  return BackwardState<T>(call, nullptr).bytes;
}

template <class T>
int64_t backward_scratch_bytes(const Call& call) {
  const int64_t blocks = BackwardScratch<T>(call, nullptr).bytes,
                in_place = InPlaceScratch<T>(call, nullptr).bytes;
  return blocks > in_place ? blocks : in_place;
}

template <class T>
void backward_prepare(const Call& call, int64_t problem, void* memory) {
  const BackwardState<T> state(call, memory);
  const LogSums<T> sums = log_sums<T>(call, problem);
  state.header->separate_directions = !call.shared || !sums.in_safe_range;
  state.header->shift = sums.shift;
  state.header->lags = call.lags[0] != nullptr || !sums.finite;
  // With separate directions, both add to the gradients of a shared similarity.
  state.header->first_write =
      first_block_writes(call) && !(call.shared && state.header->separate_directions);
  state.header->write_output = state.header->first_write && holds_vectors<T>(call, call.d) &&
                               holds_vectors<T>(call, call.dv);
  if (state.header->first_write) return;
  for (int ear = 0; ear < 2; ++ear) {
    const int64_t length = call.ears[ear].length;
    std::memset(state.ears[ear].d_query, 0, length * padded<T>(call.d) * sizeof(T));
    std::memset(state.ears[ear].d_key, 0, length * padded<T>(call.d) * sizeof(T));
    std::memset(state.ears[ear].d_value, 0, length * padded<T>(call.dv) * sizeof(T));
  }
}

template <class T, bool kBoth>
void pack_backward(const Call& call, const Job& job, int64_t problem, const BackwardState<T>& state,
                   Range rows, Range columns, const BackwardScratch<T>& s) {
  const int64_t dv = padded<T>(call.dv);
  const T one = 1, scale = static_cast<T>(call.scale);
  const T shift = state.header->shift;
  const T* row_lse = lse_of<T>(job.rows, problem) + rows.begin;
  const T* column_lse = lse_of<T>(job.columns, problem) + columns.begin;
  if (kBoth) {
    weights_of<T>(row_lse, shift, rows.size, s.row_weights);
    weights_of<T>(column_lse, shift, columns.size, s.column_weights);
  }
  for (int64_t i = 0; i < rows.size; ++i) {
    const bool alone = row_lse[i] == -kInfinity<T>;
    if (!kBoth) s.row_weights[i] = alone ? 0 : 1;
    s.row_shifts[i] = kBoth ? shift : alone ? T(0) : row_lse[i] * static_cast<T>(kLog2E);
  }
  with_storage<T>(call.storage, [&](auto storage) {
    using S = decltype(storage);
    const auto of_rows = [&](const View& view, int64_t width) {
      return matrix<S>(call, view, problem, rows.begin, rows.size, width);
    };
    const auto of_columns = [&](const View& view, int64_t width) {
      return matrix<S>(call, view, problem, columns.begin, columns.size, width);
    };
    const Factors<T> no_factor{&one, 0}, row_weights{s.row_weights, 1},
        column_weights{s.column_weights, 1};
    const auto row_matched = of_rows(job.row_matched, call.d),
               column_matched = of_columns(job.column_matched, call.d);
    pack_panels<T>(row_matched, Factors<T>{&scale, 0}, s.row_panels);
    pack_panels<T>(column_matched, Factors<T>{&scale, 0}, s.column_panels);

    const auto row_grad = of_rows(job.rows.d_output, call.dv);
    const int64_t depth = kBoth ? 2 * dv : dv;
    deltas_of<T>(row_grad, of_rows(job.rows.output, call.dv), row_weights, s.row_deltas);
    pack_rows<T>(row_grad, row_weights, s.left_factor, depth);
    pack_panels<T>(row_grad, row_weights, s.row_grads);
    pack_transposed<T>(of_columns(job.columns.value, call.dv), no_factor, s.right_factor, depth, 0);
    if (kBoth) {
      const auto column_grad = of_columns(job.columns.d_output, call.dv);
      deltas_of<T>(column_grad, of_columns(job.columns.output, call.dv), column_weights,
                   s.column_deltas);
      pack_rows<T>(of_rows(job.rows.value, call.dv), no_factor, s.left_factor + dv, depth);
      pack_panels<T>(column_grad, column_weights, s.column_grads);
      pack_transposed<T>(column_grad, column_weights, s.right_factor, depth, dv);
    }
  });
}

template <class T, bool kBoth, bool kLags>
void backward_pass(const Call& call, const Job& job, int64_t problem, const BackwardState<T>& state,
                   Range rows, Range columns, T* tile_lags, const BackwardScratch<T>& s) {
  const int64_t d = padded<T>(call.d), dv = padded<T>(call.dv), depth = kBoth ? 2 * dv : dv;
  const Matched<T> matched(call, job, problem, false, rows, columns, s.rows, s.columns);
  pack_backward<T, kBoth>(call, job, problem, state, rows, columns, s);
  const bool first_write = state.header->first_write;
  const Block block = first_block(rows, columns);
  const int64_t stride = block_within(columns.size).columns;
  Prefetcher fetch = prefetch<T>(
      call, problem, true,
      count_blocks(rows, columns) *
          (steps_of<T>(block.rows, block.columns, call.d) +
           steps_of<T>(block.rows, block.columns, depth) +
           steps_of<T>(block.columns, dv, block.rows) +
           (kBoth ? steps_of<T>(block.rows, dv, block.columns) : 0) +
           steps_of<T>(block.rows, d, block.columns) + steps_of<T>(block.columns, d, block.rows)));
  const auto results = [&](const View& output, T* accumulators, Range range, int64_t width) {
    if (state.header->write_output) return rows_in_place<T>(call, output, problem, 0);
    return Rows<T>{accumulators + range.begin * width, width};
  };
  const auto &of_rows = state.ears[job.row_ear], &of_columns = state.ears[1 - job.row_ear];
  const Rows<T> d_rows = results(job.rows.d_query, of_rows.d_query, rows, d),
                d_columns = results(call.shared ? job.columns.d_query : job.columns.d_key,
                                    of_columns.d_key, columns, d),
                dv_rows = results(job.rows.d_value, of_rows.d_value, rows, dv),
                dv_columns = results(job.columns.d_value, of_columns.d_value, columns, dv);
  const auto add_to = [&](const Rows<T>& to, int64_t row, bool first) {
    return AddTo<T>{to.data + row * to.stride, to.stride, first_write && first};
  };
  for_blocks<T>(call, rows, columns, [&](int64_t i, int64_t height, int64_t j, int64_t width) {
    const T* lags = lags_at<T>(call, problem, job.row_ear, rows.begin + i, columns.begin + j);
    matched.multiply_block(call, i, height, j, width,
                           Exponentials<T, kLags>(s.row_shifts + i, lags, s.block, stride), fetch);
    multiply<T, true>(s.block, stride, width, Panels<T>{s.row_grads, rows.size}, i, height, dv,
                      add_to(dv_columns, j, i == 0), fetch);
    if (kBoth) {
      multiply<T, false>(s.block, stride, height, Panels<T>{s.column_grads, columns.size}, j, width,
                         dv, add_to(dv_rows, i, j == 0), fetch);
    }
    multiply<T, false>(
        s.left_factor + i * depth, depth, height, Panels<T>{s.right_factor + j * depth, depth}, 0,
        depth, padded<T>(width),
        TimesExponentials<T, kBoth, kLags>(s.block, stride, s.row_deltas + i, s.column_deltas + j),
        fetch);
    if (tile_lags != nullptr) {
      const int64_t lag = job.row_ear == 0 ? j - i : i - j;
      add_lags<T>(s.block, stride, height, width, job.row_ear != 0, s.lags,
                  tile_lags + kStripe + lag);
    }
    multiply<T, false>(s.block, stride, height, Panels<T>{s.column_panels, columns.size}, j, width,
                       d, add_to(d_rows, i, j == 0), fetch);
    multiply<T, true>(s.block, stride, width, Panels<T>{s.row_panels, rows.size}, i, height, d,
                      add_to(d_columns, j, i == 0), fetch);
  });
}

template <class T>
void backward_tile(const Call& call, int64_t problem, void* memory, int64_t row_stripe,
                   int64_t column_stripe, void* scratch) {
  const BackwardState<T> state(call, memory);
  const BackwardScratch<T> s(call, scratch);
  T* tile_lags = call.lag_gradients == nullptr ? nullptr : state.lags + row_stripe * 2 * kStripe;
  if (tile_lags != nullptr) std::memset(tile_lags, 0, 2 * kStripe * sizeof(T));
  const Range left = stripe_of(call.ears[0], row_stripe),
              right = stripe_of(call.ears[1], column_stripe);
  if (left.size == 0 || right.size == 0) return;
  const auto run = [&](auto with_lags) {
    constexpr bool kLags = decltype(with_lags)::value;
    if (state.header->separate_directions) {
      backward_pass<T, false, kLags>(call, one_direction(call, 0), problem, state, left, right,
                                     tile_lags, s);
      backward_pass<T, false, kLags>(call, one_direction(call, 1), problem, state, right, left,
                                     tile_lags, s);
    } else if (is_small<T>(call)) {
      backward_in_place<T, kLags>(call, problem, state, tile_lags,
                                  InPlaceScratch<T>(call, scratch));
    } else {
      backward_pass<T, true, kLags>(call, both_directions(call), problem, state, left, right,
                                    tile_lags, s);
    }
  };
  state.header->lags ? run(std::true_type{}) : run(std::false_type{});
}

template <class T>
void backward_collect_lags(const Call& call, int64_t problem, void* memory, int64_t stage) {
  const BackwardState<T> state(call, memory);
  const int64_t n = call.ears[0].length, lags = n + call.ears[1].length - 1;
  T* total = static_cast<T*>(call.lag_gradients) + problem * lags;
  if (stage == 0) std::memset(total, 0, lags * sizeof(T));
  for (int64_t row_stripe = 0; row_stripe < call.stripes; ++row_stripe) {
    const int64_t column_stripe = (row_stripe + stage) % call.stripes;
    const T* tile = state.lags + row_stripe * 2 * kStripe;
    const int64_t begin = n - 1 + (column_stripe - row_stripe) * kStripe - kStripe;
    for (int64_t lag = 0; lag < 2 * kStripe; ++lag) {
      if (begin + lag >= 0 && begin + lag < lags) total[begin + lag] += tile[lag];
    }
  }
}

template <class T>
void backward_finish(const Call& call, int64_t problem, void* memory, int ear, int64_t stripe) {
  const BackwardState<T> state(call, memory);
  if (state.header->write_output) return;
  const auto& own = state.ears[ear];
  const Ear& outputs = call.ears[ear];
  const Range rows = stripe_of(outputs, stripe);
  const T one = 1;
  with_storage<T>(call.storage, [&](auto storage) {
    using S = decltype(storage);
    const auto write = [&](const T* from, int64_t width, const View& view) {
      write_rows<T>(from + rows.begin * padded<T>(width), padded<T>(width), Factors<T>{&one, 0},
                    matrix<S>(call, view, problem, rows.begin, rows.size, width));
    };
    write(own.d_query, call.d, outputs.d_query);
    if (!call.shared) write(own.d_key, call.d, outputs.d_key);
    write(own.d_value, call.dv, outputs.d_value);
  });
}

}  // namespace binaural::cross_attention::BINAURAL_ISA
