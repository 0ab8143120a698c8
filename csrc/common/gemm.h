// Small matrix products, whose results are processed in registers by an epilogue.
#pragma once

#include "common/simd.h"

namespace binaural::BINAURAL_ISA {

// Accumulators of one register tile: rows x vectors. 12 of the 16 registers of AVX2, 24 of the 32
// of AVX-512. A tile of one vector may have more rows. A translation unit defines
// BINAURAL_TILE_ROWS.
constexpr int kTileVectors = 2;
constexpr int kTileRows = BINAURAL_TILE_ROWS;
constexpr int kNarrowTileRows = kTileRows * 4 / 3;

// Whether tiles of so many rows are compiled, of tiles of at most `most`: the highest, and powers
// of two below it; of four in float64, which is rare. Each is code of its own for every use of a
// product, so that all heights from 1 on would take three times as long to compile.
template <class T>
constexpr bool is_height(int rows, int most) {
  if (rows == most) return true;
  for (int height = 1; height < most; height *= std::is_same_v<T, float> ? 2 : 4) {
    if (rows == height) return true;
  }
  return false;
}

// The height of the next tile where so many rows remain.
template <class T>
constexpr int tile_height(int64_t rows, int most) {
  int height = static_cast<int>(rows < most ? rows : most);
  while (!is_height<T>(height, most)) --height;
  return height;
}

template <class T>
constexpr int64_t kPanel = kTileVectors * kLanes<T>;

template <class T>
constexpr int64_t padded(int64_t width) {
  return (width + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
}

// How far products go between one call of `between` and the next.
constexpr int64_t kStep = 4;

template <class T, bool kTransposed, int kRows, int kVectors, class Step, class Epilogue,
          class Between>
__attribute__((noinline)) void multiply_tile(const T* a, int64_t a_stride, const T* b, Step b_step,
                                             int64_t depth, int64_t row, int64_t column,
                                             const Epilogue& epilogue, Between& between) {
  Vec<T> acc[kRows][kVectors];
  epilogue.begin(row, column, acc);
  const auto add_product = [&]() __attribute__((always_inline)) {
    Vec<T> bk[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) bk[v] = load<T>(b + v * kLanes<T>);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const Vec<T> ai = broadcast<T>(kTransposed ? a[i] : a[i * a_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) acc[i][v] += ai * bk[v];
    }
    a += kTransposed ? a_stride : 1;
    b += b_step;
  };
  int64_t k = 0;
  for (; k + kStep <= depth; k += kStep) {
#pragma GCC unroll 4
    for (int64_t i = 0; i < kStep; ++i) add_product();
    between();
  }
  for (; k < depth; ++k) add_product();
  epilogue.end(row, column, acc);
}

template <class T, bool kTransposed, int kVectors, class Step, class Epilogue, class Between,
          int... kIndex>
BINAURAL_INLINE void multiply_rows(int rows, const T* a, int64_t a_stride, const T* b, Step b_step,
                                   int64_t depth, int64_t row, int64_t column,
                                   const Epilogue& epilogue, Between& between,
                                   std::integer_sequence<int, kIndex...>) {
  const auto run = [&](auto height) __attribute__((always_inline)) {
    constexpr int kRows = decltype(height)::value;
    if constexpr (is_height<T>(kRows, sizeof...(kIndex))) {
      if (rows == kRows) {
        multiply_tile<T, kTransposed, kRows, kVectors>(a, a_stride, b, b_step, depth, row, column,
                                                       epilogue, between);
      }
    }
  };
  (run(std::integral_constant<int, kIndex + 1>{}), ...);
}

// How many tiles, of so many vectors, the rows are cut into.
template <class T>
constexpr int64_t tiles_of(int64_t rows, int64_t vectors) {
  const int most = vectors == kTileVectors ? kTileRows : kNarrowTileRows;
  int64_t tiles = rows / most;
  for (int64_t rest = rows % most; rest > 0; rest -= tile_height<T>(rest, most)) ++tiles;
  return tiles;
}

// How often a product of that size calls `between`. Its width is padded.
template <class T>
constexpr int64_t steps_of(int64_t rows, int64_t width, int64_t depth) {
  const int64_t panels = width / kPanel<T>, rest = padded<T>(width - panels * kPanel<T>);
  const int64_t tiles = panels * tiles_of<T>(rows, kTileVectors) +
                        (rest == 0 ? 0 : tiles_of<T>(rows, rest / kLanes<T>));
  return tiles * (depth / kStep);
}

// The right operand of a product, in panels of kPanel<T> columns side by side (fewer in the last,
// always a whole number of vectors), one panel after the other, so that a product reads it in
// order.
template <class T>
struct Panels {
  const T* data;
  int64_t depth;  // rows of a panel

  // Where row k begins in the panel of so many vectors that starts at a column, and how far it is
  // from there to the next row.
  BINAURAL_INLINE const T* at(int64_t k, int64_t column, int64_t vectors) const {
    return data + column * depth + k * vectors * kLanes<T>;
  }
  template <int kVectors>
  BINAURAL_INLINE static auto step() {
    return std::integral_constant<int64_t, kVectors * kLanes<T>>{};
  }
};

// Rows of an operand or of results. As a right operand they are whole vectors wide.
template <class T>
struct Rows {
  T* data;
  int64_t stride;

  BINAURAL_INLINE T* at(int64_t k, int64_t column, int64_t) const {
    return data + k * stride + column;
  }
  template <int kVectors>
  BINAURAL_INLINE int64_t step() const {
    return stride;
  }
};

// A [rows, depth] times rows k0 .. k0 + depth of a right operand of that width. A is read at
// a[row * a_stride + k], or at a[k * a_stride + row] if kTransposed. The epilogue begins and ends
// each register tile, at its row and column; `between` is called every kStep rows of the right
// operand.
template <class T, bool kTransposed, class Right, class Epilogue, class Between>
void multiply(const T* a, int64_t a_stride, int64_t rows, const Right& right, int64_t k0,
              int64_t depth, int64_t width, const Epilogue& epilogue, Between& between) {
  if (rows <= 0 || depth <= 0) return;
  for (int64_t column = 0; column < width; column += kPanel<T>) {
    const int64_t vectors =
        width - column < kPanel<T> ? (width - column) / kLanes<T> : kTileVectors;
    const T* b = right.at(k0, column, vectors);
    const int most = vectors == kTileVectors ? kTileRows : kNarrowTileRows;
    for (int64_t row = 0; row < rows;) {
      const int height = tile_height<T>(rows - row, most);
      const T* at = a + (kTransposed ? row : row * a_stride);
      if (vectors == kTileVectors) {
        multiply_rows<T, kTransposed, kTileVectors>(
            height, at, a_stride, b, right.template step<kTileVectors>(), depth, row, column,
            epilogue, between, std::make_integer_sequence<int, kTileRows>{});
      } else {
        multiply_rows<T, kTransposed, 1>(height, at, a_stride, b, right.template step<1>(), depth,
                                         row, column, epilogue, between,
                                         std::make_integer_sequence<int, kNarrowTileRows>{});
      }
      row += height;
    }
  }
}

// Calls f(i, v) for every accumulator. Unrolled from the start, so that they stay in registers: an
// array with an index that is not yet constant goes through memory.
template <int kRows, int kVectors, class F>
BINAURAL_INLINE void for_accumulators(F&& f) {
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) f(i, v);
  }
}

// An epilogue whose accumulators begin at 0.
template <class T>
struct FromZero {
  template <int kRows, int kVectors>
  BINAURAL_INLINE void begin(int64_t, int64_t, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v)
                                          __attribute__((always_inline)) { acc[i][v] = Vec<T>{}; });
  }
};

// Adds the product to c [rows, width]; the first one is written there.
template <class T>
struct AddTo {
  T* c;
  int64_t stride;
  bool first_write;  // c is uninitialised

  template <int kRows, int kVectors>
  BINAURAL_INLINE void begin(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      acc[i][v] = first_write ? Vec<T>{} : load<T>(c + (row + i) * stride + column + v * kLanes<T>);
    });
  }
  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      store<T>(c + (row + i) * stride + column + v * kLanes<T>, acc[i][v]);
    });
  }
};

// A factor per row, or one for all where step is 0.
template <class T>
struct Factors {
  const T* values;
  int64_t step;
};

// Writes the product, each row times its factor, to c [rows, width].
template <class T>
struct ScaleTo : FromZero<T> {
  T* c;
  int64_t stride;
  Factors<T> factors;

  ScaleTo(T* c, int64_t stride, Factors<T> factors) : c(c), stride(stride), factors(factors) {}

  template <int kRows, int kVectors>
  BINAURAL_INLINE void end(int64_t row, int64_t column, Vec<T> (&acc)[kRows][kVectors]) const {
    for_accumulators<kRows, kVectors>([&](int i, int v) __attribute__((always_inline)) {
      store<T>(c + (row + i) * stride + column + v * kLanes<T>,
               acc[i][v] * factors.values[(row + i) * factors.step]);
    });
  }
};

}  // namespace binaural::BINAURAL_ISA
