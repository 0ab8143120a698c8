// Shared by both forms of the backward: the state of a problem, and the terms of each query.
#pragma once

#include "cross_attention/cpu_tile.h"

namespace binaural::cross_attention::BINAURAL_ISA {

template <class T>
struct BackwardState {
  struct Header {
    bool separate_directions;  // each direction by itself
    bool first_write;          // the accumulators were not cleared: the first block of each writes
    bool write_output;         // results go to the outputs, not to the accumulators
    bool lags;                 // logits have a bias, or may be -inf
    T shift;                   // c, in units of log2
  };
  Header* header;
  struct {
    T *d_query, *d_key;  // [length, padded(d)]; the same where the similarity is shared
    T* d_value;          // [length, padded(dv)]
  } ears[2];
  T* lags;  // per row stripe, of the tile of this stage: [2 kStripe] by column − row + kStripe
  int64_t bytes;

  BackwardState(const Call& call, void* memory) {
    Arena arena(memory);
    header = arena.take<Header>(1);
    for (int ear = 0; ear < 2; ++ear) {
      const int64_t length = call.ears[ear].length;
      ears[ear].d_query = arena.take<T>(length * padded<T>(call.d));
      ears[ear].d_key = call.shared ? ears[ear].d_query : arena.take<T>(length * padded<T>(call.d));
      ears[ear].d_value = arena.take<T>(length * padded<T>(call.dv));
    }
    lags = arena.take<T>(call.lag_gradients == nullptr ? 0 : call.stripes * 2 * kStripe);
    bytes = arena.used();
  }
};

template <class T>
const T* lse_of(const Ear& ear, int64_t problem) {
  return static_cast<const T*>(ear.lse) + problem * ear.length;
}

// The range of a problem's lse.
template <class T>
struct LogSums {
  bool in_safe_range;  // so close to each other that one shift c serves all
  bool finite;
  T shift;  // c, in units of log2
};
template <class T>
LogSums<T> log_sums(const Call& call, int64_t problem) {
  const Vec<T> nothing = broadcast<T>(-kInfinity<T>);
  Vec<T> highest = nothing, negated = nothing;  // the largest lse, and −lse
  Ints<T> finite = Ints<T>{} - 1;
  for (const Ear& ear : call.ears) {
    const T* lse = lse_of<T>(ear, problem);
    for (int64_t i = 0; i < ear.length; i += kLanes<T>) {
      const int64_t count = ear.length - i;
      const Vec<T> l = count >= kLanes<T> ? load<T>(lse + i)
                                          : (beyond<T>(0, count) ? broadcast<T>(lse[i])
                                                                 : load_some<T>(lse + i, count));
      highest = maximum<T>(l, highest);
      finite &= l - l == Vec<T>{};
      // Queries whose keys are all masked do not count.
      negated = maximum<T>(l == nothing ? nothing : -l, negated);
    }
  }
  const T most = largest<T>(highest), least = -largest<T>(negated);
  bool all_finite = true;
  for (int lane = 0; lane < kLanes<T>; ++lane) all_finite = all_finite && finite[lane] != 0;
  return {(most - least) * static_cast<T>(kLog2E) < kSafeRange<T>, all_finite,
          most == -kInfinity<T> ? T(0) : most * static_cast<T>(kLog2E)};
}

// 2^(shift − lse) of each query, 0 if all its keys are masked.
template <class T>
void weights_of(const T* lse, T shift, int64_t count, T* weights) {
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const Vec<T> l = i + kLanes<T> <= count ? load<T>(lse + i) : load_some<T>(lse + i, count - i);
    const Vec<T> weight = exp2<T>(shift - l * static_cast<T>(kLog2E));
    store<T>(weights + i, l == broadcast<T>(-kInfinity<T>) ? Vec<T>{} : weight);
  }
}

// factor · Σ_channels grad · out of each query.
template <class T, class S>
void deltas_of(const Matrix<S>& grad, const Matrix<S>& out, Factors<T> factors, T* deltas) {
  for_row_sums<T>(
      grad.rows,
      [&](int64_t row) __attribute__((always_inline)) {
        return products<T>(grad.data + row * grad.stride, out.data + row * out.stride, grad.width);
      },
      // There is room for a whole vector beyond the last row.
      [&](int64_t row, Vec<T> sums) __attribute__((always_inline)) {
        store<T>(deltas + row, sums * (factors.step == 0 ? broadcast<T>(factors.values[0])
                                                         : load<T>(factors.values + row)));
      });
}

// dS from a register tile of products of gradients with values: δ of the rows, and if kBoth of the
// columns, is subtracted and the difference multiplied with E, or with P. With kLags, where these
// are 0 the pair is masked: dS is 0 there, even if a gradient is NaN.
template <class T, bool kBoth, bool kLags>
struct TimesExponentials : FromZero<T> {
  T* block;  // [rows, stride], E before and dS after
  int64_t stride;
  const T* row_deltas;
  const T* column_deltas;

  TimesExponentials(T* block, int64_t stride, const T* row_deltas, const T* column_deltas)
      : block(block), stride(stride), row_deltas(row_deltas), column_deltas(column_deltas) {}

  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      T* at = block + (row + i) * stride + column + v * kLanes<T>;
      Vec<T> deltas = broadcast<T>(row_deltas[row + i]);
      if (kBoth) deltas += load<T>(column_deltas + column + v * kLanes<T>);
      const Vec<T> e = load<T>(at);
      const Vec<T> ds = e * (acc[i][v] - deltas);
      store<T>(at, kLags ? (e == Vec<T>{} ? e : ds) : ds);
    });
  }
};

// Elements of scratch for add_lags: the lags of a block, and a vector.
template <class T>
constexpr int64_t kLagScratch = kMostBlockRows + kMostBlockColumns + kLanes<T>;

// Adds the diagonals of a block of dS [height, width] to `total`, by column − row; mirrored if the
// block is that of the other direction.
template <class T>
void add_lags(const T* block, int64_t stride, int64_t height, int64_t width, bool mirrored,
              T* scratch, T* total) {
  std::memset(scratch, 0, kLagScratch<T> * sizeof(T));
  for (int64_t row = 0; row < height; ++row) {
    T* to = scratch + height - 1 - row;
    const T* from = block + row * stride;
    int64_t j = 0;
    for (; j + kLanes<T> <= width; j += kLanes<T>)
      store<T>(to + j, load<T>(to + j) + load<T>(from + j));
    for (; j < width; ++j) to[j] += from[j];
  }
  for (int64_t lag = 1 - height; lag < width; ++lag) {
    total[mirrored ? -lag : lag] += scratch[lag + height - 1];
  }
}

}  // namespace binaural::cross_attention::BINAURAL_ISA
