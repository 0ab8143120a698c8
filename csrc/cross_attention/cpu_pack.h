// Operands packed for common/gemm.h: converted to the compute type, scaled, padded with zeros.
#pragma once

#include "common/gemm.h"
#include "cross_attention/cpu_kernel.h"

namespace binaural::cross_attention::BINAURAL_ISA {

using namespace binaural::BINAURAL_ISA;

// One head of one problem: [rows, width] at `data`, rows `stride` apart.
template <class S>
struct Matrix {
  S* data;
  int64_t stride, rows, width;
};

template <class S>
BINAURAL_INLINE Matrix<S> matrix(const Call& call, const View& view, int64_t problem, int64_t first,
                                 int64_t rows, int64_t width) {
  const int64_t r = problem / call.heads, h = problem % call.heads;
  S* data = static_cast<S*>(view.data) + r * view.r_stride + h * view.head_stride +
            first * view.time_stride;
  return {data, view.time_stride, rows, width};
}

// Calls f with a value of the storage type.
template <class T, class F>
BINAURAL_INLINE void with_storage(Storage storage, F&& f) {
  if constexpr (std::is_same_v<T, double>) {
    f(double{});
  } else if (storage == Storage::kBFloat16) {
    f(BFloat16{});
  } else if (storage == Storage::kFloat16) {
    f(Float16{});
  } else {
    f(float{});
  }
}

// Calls f(row, column, vector) for all vectors of the matrix, the last of a row padded with zeros.
template <class T, class S, class F>
BINAURAL_INLINE void for_vectors(const Matrix<S>& m, F&& f) {
  const int64_t whole = m.width / kLanes<T> * kLanes<T>;
  for (int64_t row = 0; row < m.rows; ++row) {
    const S* p = m.data + row * m.stride;
    for (int64_t c = 0; c < whole; c += kLanes<T>) f(row, c, load_as<T>(p + c));
    if (whole < m.width) f(row, whole, load_some<T>(p + whole, m.width - whole));
  }
}

// Row-major, rows `stride` apart.
template <class T, class S>
void pack_rows(const Matrix<S>& m, Factors<T> factors, T* to, int64_t stride) {
  for_vectors<T>(m, [&](int64_t row, int64_t c, Vec<T> v) __attribute__((always_inline)) {
    store<T>(to + row * stride + c, v * factors.values[row * factors.step]);
  });
}

// In panels of columns: the right operand of a product whose inner index is the row.
template <class T, class S>
void pack_panels(const Matrix<S>& m, Factors<T> factors, T* to) {
  const int64_t whole = m.width / kPanel<T> * kPanel<T>, rest = m.width - whole;
  const int64_t last_width = padded<T>(rest);
  for (int64_t row = 0; row < m.rows; ++row) {
    const Vec<T> factor = broadcast<T>(factors.values[row * factors.step]);
    const S* p = m.data + row * m.stride;
    T* at = to + row * kPanel<T>;
    for (int64_t c = 0; c < whole; c += kPanel<T>, at += m.rows * kPanel<T>) {
      for (int v = 0; v < kTileVectors; ++v) {
        store<T>(at + v * kLanes<T>, load_as<T>(p + c + v * kLanes<T>) * factor);
      }
    }
    at = to + whole * m.rows + row * last_width;
    for (int64_t c = 0; c < rest; c += kLanes<T>) {
      const S* q = p + whole + c;
      const Vec<T> v = c + kLanes<T> <= rest ? load_as<T>(q) : load_some<T>(q, rest - c);
      store<T>(at + c, v * factor);
    }
  }
}

// In panels of rows: the right operand of a product whose inner index is the column. The inner
// index is padded to whole vectors; panel_depth says how many rows a panel has, of which this fills
// those from k0.
template <class T, class S>
void pack_transposed(const Matrix<S>& m, Factors<T> factors, T* to, int64_t panel_depth,
                     int64_t k0) {
  constexpr int kCount = kLanes<T>;
  const int64_t width = padded<T>(m.rows), whole = width / kPanel<T> * kPanel<T>;
  for (int64_t row = 0; row < m.rows; row += kCount) {
    const int64_t panel = row / kPanel<T> * kPanel<T>;
    const int64_t panel_width = panel < whole ? kPanel<T> : width - whole;
    T* at = to + panel * panel_depth + k0 * panel_width + (row - panel);
    Vec<T> factor;
    for (int i = 0; i < kCount; ++i) {
      factor[i] = factors.values[(row + i < m.rows ? row + i : m.rows - 1) * factors.step];
    }
    for (int64_t c = 0; c < m.width; c += kCount) {
      Vec<T> square[kCount];
      const S* p = m.data + row * m.stride + c;
      const int64_t left = m.width - c;
      if (row + kCount <= m.rows && left >= kCount) {
        load_transposed<T>(p, m.stride, square);
      } else {
        const int64_t count = left < kCount ? left : kCount;
        for (int64_t i = 0; i < kCount; ++i) {
          square[i] = row + i < m.rows ? load_some<T>(p + i * m.stride, count) : Vec<T>{};
        }
        transpose<T>(square);
      }
      for (int i = 0; i < kCount; ++i) store<T>(at + (c + i) * panel_width, square[i] * factor);
    }
  }
}

// Writes rows of accumulators, each times its factor, to an output.
template <class T, class S>
void write_rows(const T* from, int64_t stride, Factors<T> factors, const Matrix<S>& m) {
  const int64_t whole = m.width / kLanes<T> * kLanes<T>;
  for (int64_t row = 0; row < m.rows; ++row) {
    const Vec<T> factor = broadcast<T>(factors.values[row * factors.step]);
    const T* p = from + row * stride;
    S* q = m.data + row * m.stride;
    for (int64_t c = 0; c < whole; c += kLanes<T>) store_as<T>(q + c, load<T>(p + c) * factor);
    if (whole < m.width) store_some<T>(q + whole, load<T>(p + whole) * factor, m.width - whole);
  }
}

// Calls f(row) for a vector of each row, and done(row, sums) with the sums of the lanes of
// kLanes<T> rows.
template <class T, class F, class G>
BINAURAL_INLINE void for_row_sums(int64_t rows, F&& f, G&& done) {
  constexpr int kCount = kLanes<T>;
  for (int64_t row = 0; row < rows; row += kCount) {
    Vec<T> square[kCount];
    // Beyond the last row, the last row again.
#pragma GCC unroll 16
    for (int i = 0; i < kCount; ++i) square[i] = f(row + i < rows ? row + i : rows - 1);
    done(row, sum_lanes<T>(square));
  }
}

// Σ_channels a · b of a row, lane by lane.
template <class T, class S>
BINAURAL_INLINE Vec<T> products(const S* a, const S* b, int64_t width) {
  Vec<T> total{};
  int64_t c = 0;
  for (; c + kLanes<T> <= width; c += kLanes<T>) total += load_as<T>(a + c) * load_as<T>(b + c);
  if (c < width) total += load_some<T>(a + c, width - c) * load_some<T>(b + c, width - c);
  return total;
}

// The largest squared norm of a row.
template <class T, class S>
T largest_square_norm(const Matrix<S>& m) {
  Vec<T> most{};
  for_row_sums<T>(
      m.rows,
      [&](int64_t row) __attribute__((always_inline)) {
        return products<T>(m.data + row * m.stride, m.data + row * m.stride, m.width);
      },
      [&](int64_t, Vec<T> norms)
          __attribute__((always_inline)) { most = maximum<T>(norms, most); });
  return largest<T>(most);
}

// Fetches rows that are needed soon into the second-level cache, a few at a time, while other work
// is being done: they lie too far apart for the processor to do so by itself.
class Prefetcher {
 public:
  void add(const Call& call, const View& view, int64_t problem, int64_t rows, int64_t width,
           int64_t element) {
    const int64_t r = problem / call.heads, h = problem % call.heads;
    const char* data =
        static_cast<const char*>(view.data) + (r * view.r_stride + h * view.head_stride) * element;
    streams_[count_++] = {data, view.time_stride * element, rows, width * element};
    total_ += rows;
  }

  // To be called `steps` times.
  void plan(int64_t steps) { per_step_ = steps == 0 ? total_ : (total_ + steps - 1) / steps; }

  BINAURAL_INLINE void operator()() {
    for (int64_t left = per_step_; left > 0 && current_ < count_; --left) {
      const Stream& stream = streams_[current_];
      const char* p = stream.data + row_ * stream.stride;
      const char* end = p + stream.bytes;
      for (p -= reinterpret_cast<uintptr_t>(p) % 64; p < end; p += 64) __builtin_prefetch(p, 0, 2);
      if (++row_ == stream.rows) {
        row_ = 0;
        ++current_;
      }
    }
  }

 private:
  struct Stream {
    const char* data;
    int64_t stride, rows, bytes;
  };
  Stream streams_[16];
  int64_t count_ = 0, total_ = 0, per_step_ = 0, current_ = 0, row_ = 0;
};

// Memory handed out piece by piece, each aligned to 64 bytes. With no base it only counts.
class Arena {
 public:
  explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

  template <class T>
  T* take(int64_t count) {
    T* piece = reinterpret_cast<T*>(base_ + used_);
    used_ += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
    return piece;
  }
  int64_t used() const { return used_; }

 private:
  char* base_;
  int64_t used_ = 0;
};

}  // namespace binaural::cross_attention::BINAURAL_ISA
