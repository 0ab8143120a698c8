// Products of bfloat16 matrices on the tile registers of AMX, and their operands.
//
// A tile has 16 rows of 64 bytes. The instruction multiplies a tile of 16 x 32 values, row-major,
// with one of 32 x 16, in which the two rows of a pair are interleaved, and adds to 16 x 16 sums in
// float. Matrices are padded to whole tiles: with zeros along the summed dimension; elsewhere
// padding is uninitialised, and sums over it are discarded.
#pragma once

#include "cross_attention/cpu_pack.h"

namespace binaural::cross_attention::BINAURAL_ISA {

constexpr int64_t kTile = 16;             // rows, and columns of sums
constexpr int64_t kDepth = 32;            // values in a row of a tile, the summed dimension
constexpr int64_t kBlock = 32;            // a block of a product: 2 x 2 tiles
constexpr int64_t kValues = 16 * kDepth;  // of a tile

constexpr int64_t blocks(int64_t length) { return (length + kBlock - 1) / kBlock; }

// The sums of a block.
using BlockSums = float[kBlock * kBlock];

// How many tiles of a block so many rows or columns need.
constexpr int tiles_of(int64_t length) { return length > kTile ? 2 : 1; }

using Vector = Vec<float>;

template <int kNumber>
BINAURAL_INLINE void clear_tile() {
  asm volatile("tilezero %%tmm%c0" ::"i"(kNumber));
}
template <int kNumber>
BINAURAL_INLINE void load_tile(const void* data, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(data), "r"(stride), "i"(kNumber) : "memory");
}
template <int kNumber>
BINAURAL_INLINE void store_tile(void* data, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(data), "r"(stride), "i"(kNumber) : "memory");
}
template <int kSums, int kLeft, int kRight>
BINAURAL_INLINE void multiply_tiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(kSums), "i"(kLeft), "i"(kRight));
}

// A left operand: rows of `stride` values.
struct Left {
  const BFloat16* data;
  int64_t stride;
};

// A right operand: its tiles, those of a column of tiles one after the other.
struct Right {
  const BFloat16* data;
  int64_t depth;  // tiles in a column
};

// to [kBlock, kBlock] = a b, of which kRows x kColumns tiles are written.
template <int kRows, int kColumns>
void multiply_block(Left a, Right b, float* to) {
  const int64_t stride = a.stride * sizeof(BFloat16), row_stride = kBlock * sizeof(float);
  clear_tile<0>();
  if (kColumns > 1) clear_tile<1>();
  if (kRows > 1) clear_tile<2>();
  if (kRows > 1 && kColumns > 1) clear_tile<3>();
  for (int64_t k = 0; k < b.depth; ++k) {
    load_tile<4>(a.data + k * kDepth, stride);
    load_tile<6>(b.data + k * kValues, 64);
    multiply_tiles<0, 4, 6>();
    if (kRows > 1) {
      load_tile<5>(a.data + kTile * a.stride + k * kDepth, stride);
      multiply_tiles<2, 5, 6>();
    }
    if (kColumns > 1) {
      load_tile<7>(b.data + (b.depth + k) * kValues, 64);
      multiply_tiles<1, 4, 7>();
      if (kRows > 1) multiply_tiles<3, 5, 7>();
    }
  }
  store_tile<0>(to, row_stride);
  if (kColumns > 1) store_tile<1>(to + kTile, row_stride);
  if (kRows > 1) store_tile<2>(to + kTile * kBlock, row_stride);
  if (kRows > 1 && kColumns > 1) store_tile<3>(to + kTile * kBlock + kTile, row_stride);
}

// The block at `row` and `column` of a product of so many rows and columns.
inline void multiply(Left a, int64_t row, int64_t rows, Right b, int64_t column, int64_t columns,
                     float* to) {
  a.data += row * a.stride;
  b.data += column / kTile * b.depth * kValues;
  if (tiles_of(rows - row) == 1) {
    tiles_of(columns - column) == 1 ? multiply_block<1, 1>(a, b, to)
                                    : multiply_block<1, 2>(a, b, to);
  } else {
    tiles_of(columns - column) == 1 ? multiply_block<2, 1>(a, b, to)
                                    : multiply_block<2, 2>(a, b, to);
  }
}

// Calls use(row, column, slot) for every block of a matrix, after multiply(row, column, slot) for
// it and for the next one, so that the tile unit and the vector units work at the same time. Slot 0
// or 1 is the buffer of the block's sums, which stays in the first-level cache.
template <class F, class G>
BINAURAL_INLINE void for_blocks_of(int64_t rows, int64_t columns, F&& multiply, G&& use) {
  multiply(0, 0, 0);
  int64_t row = 0, column = 0;
  for (int slot = 0; row < rows; slot = 1 - slot) {
    const bool last = column + kBlock >= columns;
    const int64_t next_row = last ? row + kBlock : row, next_column = last ? 0 : column + kBlock;
    if (next_row < rows) multiply(next_row, next_column, 1 - slot);
    use(row, column, slot);
    row = next_row;
    column = next_column;
  }
}

// --- operands

typedef int16_t Pairs __attribute__((vector_size(64)));

// The first `count` of 32 values, the others 0.
BINAURAL_INLINE Pairs load_values(const BFloat16* p, int64_t count) {
  const uint32_t mask = count >= kDepth ? ~uint32_t{0} : (uint32_t{1} << count) - 1;
  return bit_cast<Pairs>(
      __builtin_ia32_loaddquhi512_mask(reinterpret_cast<const int16_t*>(p), Pairs{}, mask));
}

// Row-major, `stride` apart: a left operand.
inline void pack_left(const Matrix<BFloat16>& m, BFloat16* to, int64_t stride) {
  for (int64_t row = 0; row < m.rows; ++row) {
    for (int64_t c = 0; c < m.width; c += kDepth) {
      const Pairs values = load_values(m.data + row * m.stride + c, m.width - c);
      std::memcpy(to + row * stride + c, &values, sizeof(values));
    }
  }
}

// Transposed: the right operand of a product over the columns of m. A pair of values moves as one.
inline void pack_right_transposed(const Matrix<BFloat16>& m, BFloat16* to) {
  for (int64_t row = 0; row < m.rows; row += kTile) {
    for (int64_t c = 0; c < m.width; c += kDepth, to += kValues) {
      Vector square[kTile];
      for (int i = 0; i < kTile; ++i) {
        square[i] =
            row + i < m.rows
                ? bit_cast<Vector>(load_values(m.data + (row + i) * m.stride + c, m.width - c))
                : Vector{};
      }
      transpose<float>(square);
      std::memcpy(to, square, sizeof(square));
    }
  }
}

// The first values of a and b by turns, or from kFirst on.
template <int kFirst, int... kLane>
BINAURAL_INLINE Pairs interleave(Pairs a, Pairs b, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (kFirst + kLane / 2 + kLane % 2 * 32)...);
}

// Not transposed: the right operand of a product over the rows of m.
inline void pack_right(const Matrix<BFloat16>& m, BFloat16* to) {
  constexpr auto kAll = std::make_integer_sequence<int, 32>{};
  const int64_t depth = blocks(m.rows);
  for (int64_t c = 0; c < m.width; c += kDepth) {
    for (int64_t row = 0; row < depth * kDepth; row += 2) {
      const auto row_of = [&](int64_t at) __attribute__((always_inline)) {
        return at < m.rows ? load_values(m.data + at * m.stride + c, m.width - c) : Pairs{};
      };
      const Pairs a = row_of(row), b = row_of(row + 1);
      const Pairs low = interleave<0>(a, b, kAll), high = interleave<kTile>(a, b, kAll);
      BFloat16* at = to + (c / kTile * depth + row / kDepth) * kValues + row % kDepth * kTile;
      std::memcpy(at, &low, sizeof(low));
      std::memcpy(at + depth * kValues, &high, sizeof(high));
    }
  }
}

// To bfloat16 and back.
BINAURAL_INLINE Vector rounded(Vector v) {
  return widen(extend(round_to(v, BFloat16{})), BFloat16{});
}

// Values of a block for two products: over its columns (`row`) and over its rows (`column`).
struct Weighted {
  Vector row, column;
};

// Rounds a block of rows x columns to the left operands of products over its columns, and,
// transposed, over its rows. weighted(row, column) gives the 16 values from there on, 0 beyond the
// last column.
template <class F>
BINAURAL_INLINE void round_block(int64_t rows, int64_t columns, BFloat16* of_rows,
                                 int64_t row_stride, BFloat16* of_columns, int64_t column_stride,
                                 F&& weighted) {
  for (int64_t column = 0; column < kBlock; column += kTile) {
    if (column >= columns) {
      for (int64_t row = 0; row < rows; ++row) {
        std::memset(of_rows + row * row_stride + column, 0, kTile * sizeof(BFloat16));
      }
      return;
    }
    Vector square[kTile];
    for (int64_t row = 0; row < kBlock; row += 2) {
      if (row >= rows) {
        square[row / 2] = Vector{};
        continue;
      }
      const Weighted a = weighted(row, column),
                     b = row + 1 < rows ? weighted(row + 1, column) : Weighted{};
      BFloat16* to = of_rows + row * row_stride + column;
      store_as<float>(to, a.row);
      if (row + 1 < rows) store_as<float>(to + row_stride, b.row);
      // The name of the builtin depends on the version of the compiler.
      Pairs both;
      asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(b.column), "v"(a.column));
      square[row / 2] = bit_cast<Vector>(__builtin_shufflevector(
          both, both, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26,
          11, 27, 12, 28, 13, 29, 14, 30, 15, 31));
    }
    transpose<float>(square);
    for (int64_t i = 0; i < kTile; ++i) {
      std::memcpy(of_columns + (column + i) * column_stride, &square[i], sizeof(square[i]));
    }
  }
}

// Writes factor(row) · (a b) to an output of its size.
template <class F>
void write_product(Left a, Right b, F&& factor, const Matrix<BFloat16>& to, BlockSums (&sums)[2]) {
  for_blocks_of(
      to.rows, to.width,
      [&](int64_t row, int64_t column, int slot) {
        multiply(a, row, to.rows, b, column, to.width, sums[slot]);
      },
      [&](int64_t row, int64_t column, int slot) {
        const int64_t columns = std::min(to.width - column, kBlock);
        for (int64_t i = 0; i < std::min(to.rows - row, kBlock); ++i) {
          BFloat16* p = to.data + (row + i) * to.stride + column;
          const Vector scale = broadcast<float>(factor(row + i));
          for (int64_t j = 0; j < columns; j += kTile) {
            const Vector value = load<float>(sums[slot] + i * kBlock + j) * scale;
            columns - j >= kTile ? store_as<float>(p + j, value)
                                 : store_some<float>(p + j, value, columns - j);
          }
        }
      });
}

}  // namespace binaural::cross_attention::BINAURAL_ISA
