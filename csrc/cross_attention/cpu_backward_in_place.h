// Backward of a small problem as a whole, with operands read where they lie: of so few steps,
// packing them would take as long as the products.
//
// With a and b of cpu_backward.h in P = a E and Q = E b, it is the formula as it stands there:
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

// P and Q from a register tile of products, both exactly 0 where a pair is masked.
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
      const Ints<T> masked = e == Vec<T>{};
      store<T>(p_block + at, masked ? e : e * row_weights[row + i]);
      store<T>(q_block + at, masked ? e : e * load<T>(column_weights + first));
    });
  }
};

// Subtracts δ of each column and adds Q times the difference; 0 where Q is 0, as above.
template <class T>
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
                   difference = acc[i][v] - load<T>(deltas + column + v * kLanes<T>);
      store<T>(to + at, load<T>(to + at) + (q == Vec<T>{} ? q : q * difference));
    });
  }
};

template <class T, bool kLags>
void backward_in_place(const Call& call, int64_t problem, const BackwardState<T>& state,
                       T* tile_lags, const InPlaceScratch<T>& s) {
  const Pass pass = both_directions(call);
  const Range rows{0, pass.rows.length}, columns{0, pass.columns.length};
  const int64_t n = rows.size, m = columns.size, d = call.d, dv = call.dv, stride = padded<T>(m);
  const T one = 1, scale = static_cast<T>(call.scale), shift = state.header->shift;
  weights_of<T>(lse_of<T>(pass.rows, problem), shift, n, s.row_weights);
  weights_of<T>(lse_of<T>(pass.columns, problem), shift, m, s.column_weights);
  const auto in_place = [&](const View& view) {
    return rows_in_place<const T>(call, view, problem, 0);
  };
  const Matched<T> matched(call, pass, problem, true, rows, columns, nullptr, s.matches);
  const Rows<const T> q_columns = in_place(pass.column_match), v_rows = in_place(pass.rows.v),
                      do_rows = in_place(pass.rows.grad_o),
                      do_columns = in_place(pass.columns.grad_o);
  const auto set_deltas = [&](const Side& side, T* deltas) {
    deltas_of<T>(matrix<T>(call, side.grad_o, problem, 0, side.length, dv),
                 matrix<T>(call, side.o, problem, 0, side.length, dv), Factors<T>{&one, 0}, deltas);
  };
  set_deltas(pass.rows, s.row_deltas);
  set_deltas(pass.columns, s.column_deltas);
  const Panels<T> v_transposed =
      packed_transposed<T>(call, pass.columns.v, problem, columns, dv, one, s.values);
  const Panels<T> do_transposed =
      packed_transposed<T>(call, pass.columns.grad_o, problem, columns, dv, one, s.grads);
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
  multiply<T, true>(s.p_block, stride, m, do_rows, 0, n, dv, to(pass.columns.dv, &one), fetch);
  multiply<T, false>(s.q_block, stride, n, do_columns, 0, m, dv, to(pass.rows.dv, &one), fetch);
  multiply<T, false>(do_rows.data, do_rows.stride, n, v_transposed, 0, dv, stride,
                     TimesExponentials<T, false>(s.p_block, stride, s.row_deltas, nullptr), fetch);
  multiply<T, false>(v_rows.data, v_rows.stride, n, do_transposed, 0, dv, stride,
                     AddTimesQ<T>(s.p_block, s.q_block, stride, s.column_deltas), fetch);
  if (tile_lags != nullptr) {
    add_lags<T>(s.p_block, stride, n, m, false, s.lags, tile_lags + kStripe);
  }
  multiply<T, false>(s.p_block, stride, n, q_columns, 0, m, d, to(pass.rows.dq, &scale), fetch);
  multiply<T, true>(s.p_block, stride, m, matched.rows, 0, n, d, to(pass.columns.dq, &scale),
                    fetch);
}

}  // namespace binaural::cross_attention::BINAURAL_ISA
