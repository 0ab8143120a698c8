// Backward of a small problem, with operands read in place: packing them would take as long as the
// products.
//
// It computes the formula of cpu_backward.h, with P = a E and Q = E b:
//
//   dS = P ∘ (do_rows v_columns^T − δ_rows) + Q ∘ (v_rows do_columns^T − δ_columns),
//
// and dv_columns = P^T do_rows, dv_rows = Q do_columns.
#pragma once

#include "cross_attention/cpu_backward_parts.h"

namespace binaural::cross_attention::BINAURAL_ISA {

template <class T>
struct InPlaceScratch {
  T *matches, *values, *grads;      // of the columns, transposed
  T *row_weights, *column_weights;  // a, b
  T *row_deltas, *column_deltas;    // δ
  T* p_block;                       // [rows, padded(columns)]: P, then dS
  T* q_block;                       // Q
  T* lags;
  int64_t bytes;

  InPlaceScratch(const Call& call, void* memory) {
    Arena arena(memory);
    matches = arena.take<T>(kPanel<T> * padded<T>(call.d));
    for (T** piece : {&values, &grads}) *piece = arena.take<T>(kPanel<T> * padded<T>(call.dv));
    for (T** piece : {&row_weights, &column_weights, &row_deltas, &column_deltas}) {
      *piece = arena.take<T>(kPanel<T>);
    }
    for (T** piece : {&p_block, &q_block}) *piece = arena.take<T>(kPanel<T> * kPanel<T>);
    lags = arena.take<T>(kLagScratch<T>);
    bytes = arena.used();
  }
};

// P and Q from a register tile of products; with kLags both exactly 0 where a pair is masked.
template <class T, bool kLags>
struct Probabilities : Logits<T, kLags> {
  T* p_block;  // [rows, stride]
  T* q_block;
  int64_t stride;
  const T* row_weights;
  const T* column_weights;

  Probabilities(const Logits<T, kLags>& logits, T* p_block, T* q_block, int64_t stride,
                const T* row_weights, const T* column_weights)
      : Logits<T, kLags>(logits),
        p_block(p_block),
        q_block(q_block),
        stride(stride),
        row_weights(row_weights),
        column_weights(column_weights) {}

  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      const int64_t first = column + v * kLanes<T>, at = (row + i) * stride + first;
      const Vec<T> e = this->exponential(acc[i][v], row + i, first);
      const Vec<T> p = e * row_weights[row + i], q = e * load<T>(column_weights + first);
      const Ints<T> masked = e == Vec<T>{};
      store<T>(p_block + at, kLags ? (masked ? e : p) : p);
      store<T>(q_block + at, kLags ? (masked ? e : q) : q);
    });
  }
};

// Subtracts δ of each column and adds Q times the difference; with kLags 0 where Q is 0.
template <class T, bool kLags>
struct AddTimesQ : FromZero<T> {
  T* to;
  const T* q_block;
  int64_t stride;
  const T* deltas;

  AddTimesQ(T* to, const T* q_block, int64_t stride, const T* deltas)
      : to(to), q_block(q_block), stride(stride), deltas(deltas) {}

  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      const int64_t at = (row + i) * stride + column + v * kLanes<T>;
      const Vec<T> q = load<T>(q_block + at),
                   ds = q * (acc[i][v] - load<T>(deltas + column + v * kLanes<T>));
      store<T>(to + at, load<T>(to + at) + (kLags ? (q == Vec<T>{} ? q : ds) : ds));
    });
  }
};

template <class T, bool kLags>
void backward_in_place(const Call& call, int64_t problem, const BackwardState<T>& state,
                       T* tile_lags, const InPlaceScratch<T>& s) {
  const Job job = both_directions(call);
  const Range rows{0, job.rows.length}, columns{0, job.columns.length};
  const int64_t n = rows.size, m = columns.size, d = call.d, dv = call.dv, stride = padded<T>(m);
  const T one = 1, scale = static_cast<T>(call.scale), shift = state.header->shift;
  weights_of<T>(lse_of<T>(job.rows, problem), shift, n, s.row_weights);
  weights_of<T>(lse_of<T>(job.columns, problem), shift, m, s.column_weights);
  const auto in_place = [&](const View& view) {
    return rows_in_place<const T>(call, view, problem, 0);
  };
  const Matched<T> matched(call, job, problem, true, rows, columns, nullptr, s.matches);
  const Rows<const T> q_columns = in_place(job.column_matched), v_rows = in_place(job.rows.value),
                      do_rows = in_place(job.rows.d_output),
                      do_columns = in_place(job.columns.d_output);
  const auto set_deltas = [&](const Ear& ear, T* deltas) {
    deltas_of<T>(matrix<T>(call, ear.d_output, problem, 0, ear.length, dv),
                 matrix<T>(call, ear.output, problem, 0, ear.length, dv), Factors<T>{&one, 0},
                 deltas);
  };
  set_deltas(job.rows, s.row_deltas);
  set_deltas(job.columns, s.column_deltas);
  const Panels<T> v_transposed =
      packed_transposed<T>(call, job.columns.value, problem, columns, dv, one, s.values);
  const Panels<T> do_transposed =
      packed_transposed<T>(call, job.columns.d_output, problem, columns, dv, one, s.grads);
  Prefetcher fetch = prefetch<T>(call, problem, true,
                                 steps_of<T>(n, stride, d) + 2 * steps_of<T>(n, stride, dv) +
                                     steps_of<T>(m, dv, n) + steps_of<T>(n, dv, m) +
                                     steps_of<T>(n, d, m) + steps_of<T>(m, d, n));
  const auto to = [&](const View& view, const T* factor) {
    const Rows<T> output = rows_in_place<T>(call, view, problem, 0);
    return ScaleTo<T>{output.data, output.stride, {factor, 0}};
  };
  T shifts[kPanel<T>];
  for (T& each : shifts) each = shift;
  const T* lags = lags_at<T>(call, problem, 0, 0, 0);
  matched.multiply_block(call, 0, n, 0, m,
                         Probabilities<T, kLags>({shifts, lags}, s.p_block, s.q_block, stride,
                                                 s.row_weights, s.column_weights),
                         fetch);
  multiply<T, true>(s.p_block, stride, m, do_rows, 0, n, dv, to(job.columns.d_value, &one), fetch);
  multiply<T, false>(s.q_block, stride, n, do_columns, 0, m, dv, to(job.rows.d_value, &one), fetch);
  multiply<T, false>(do_rows.data, do_rows.stride, n, v_transposed, 0, dv, stride,
                     TimesExponentials<T, false, kLags>(s.p_block, stride, s.row_deltas, nullptr),
                     fetch);
  multiply<T, false>(v_rows.data, v_rows.stride, n, do_transposed, 0, dv, stride,
                     AddTimesQ<T, kLags>(s.p_block, s.q_block, stride, s.column_deltas), fetch);
  if (tile_lags != nullptr) {
    add_lags<T>(s.p_block, stride, n, m, false, s.lags, tile_lags + kStripe);
  }
  multiply<T, false>(s.p_block, stride, n, q_columns, 0, m, d, to(job.rows.d_query, &scale), fetch);
  multiply<T, true>(s.p_block, stride, m, matched.rows, 0, n, d, to(job.columns.d_query, &scale),
                    fetch);
}

}  // namespace binaural::cross_attention::BINAURAL_ISA
