// One sweep over rows of an image: values and gradient of the loss. Compiled once per instruction
// set, see cpu_table.h.
//
// For each new row, the Sobel derivatives and the terms are computed at the row above it, the
// centre of three; the row above that then has the derivatives of all neighbours, and its gradient
// is written. A pass over a row keeps the neighbouring vectors in registers: the left and right
// neighbours of a pixel cost a shuffle instead of a load. There are four short passes in place of
// one, because the processor looks ahead by about two hundred operations: the fewer of them depend
// on each other, the more pixels it computes at a time.
//
// A pixel without a measurement is NaN in the cleaned target, and so are pixels beyond the image:
// the stencil spreads NaN to exactly those pixels that the erosion removes.
#pragma once

#include "common/simd.h"
#include "depth_loss/cpu_kernel.h"

namespace binaural::depth_loss::BINAURAL_ISA {

using namespace ::binaural::BINAURAL_ISA;

// The bits of Call::coded that hold a sign.
constexpr int kSign = 3;

template <class T>
BINAURAL_INLINE Vec<T> keep(Ints<T> mask, Vec<T> value) {
  return bit_cast<Vec<T>>(bit_cast<Ints<T>>(value) & mask);
}

template <class T>
BINAURAL_INLINE Vec<T> absolute(Vec<T> value) {
  return keep<T>(~bit_cast<Ints<T>>(broadcast<T>(T(-0.0))), value);
}

// weight · sign(x), 0 where x is 0.
template <class T>
BINAURAL_INLINE Vec<T> with_sign(Vec<T> weight, Vec<T> x) {
  const Ints<T> sign = bit_cast<Ints<T>>(broadcast<T>(T(-0.0)));
  return bit_cast<Vec<T>>((bit_cast<Ints<T>>(weight) ^ (bit_cast<Ints<T>>(x) & sign)) &
                          (x != Vec<T>{}));
}

template <class T, int... kLane>
BINAURAL_INLINE Vec<T> right_of(Vec<T> here, Vec<T> right, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(here, right, (1 + kLane)...);
}

// A vector of a row between its neighbours.
template <class T>
struct Window {
  Vec<T> left, here, right;

  static constexpr auto kAll = std::make_integer_sequence<int, kLanes<T>>{};
  BINAURAL_INLINE void advance(Vec<T> next) {
    left = here;
    here = right;
    right = next;
  }
  // By the weights -1, 0, 1, and 1, 2, 1.
  BINAURAL_INLINE Vec<T> difference() const {
    return right_of<T>(here, right, kAll) - left_of<T>(left, here, kAll);
  }
  BINAURAL_INLINE Vec<T> smoothed() const {
    return (left_of<T>(left, here, kAll) + right_of<T>(here, right, kAll)) + T(2) * here;
  }
};

template <class T, class Stored>
void copy_row(const Stored* from, int64_t stride, int64_t width, T* to) {
  int64_t x = 0;
  if (stride == 1) {
    for (; x + kLanes<T> <= width; x += kLanes<T>) store<T>(to + x, load_as<T>(from + x));
  }
  for (; x < width; ++x) to[x] = load_some<T>(from + x * stride, 1)[0];
}

// Row y of image b as values of T: in place where whole vectors can be read from it, else in
// `copy`.
template <class T>
const T* read_row(const Images& images, int64_t b, int64_t y, int64_t width, T* copy) {
  const int64_t offset = b * images.strides[0] + y * images.strides[1], stride = images.strides[2];
  if (images.storage == Storage::kWide) {
    const T* row = static_cast<const T*>(images.data) + offset;
    if (stride == 1 && width % kLanes<T> == 0) return row;
    copy_row<T>(row, stride, width, copy);
  }
  if constexpr (std::is_same_v<T, float>) {
    if (images.storage == Storage::kBFloat16) {
      copy_row<T>(static_cast<const BFloat16*>(images.data) + offset, stride, width, copy);
    } else if (images.storage == Storage::kFloat16) {
      copy_row<T>(static_cast<const Float16*>(images.data) + offset, stride, width, copy);
    }
  }
  return copy;
}

// Three rows, the newest last.
template <class T>
struct Ring {
  T* rows[3];
  T* operator[](int i) const { return rows[i]; }
  void advance() {
    T* oldest = rows[0];
    rows[0] = rows[1];
    rows[1] = rows[2];
    rows[2] = oldest;
  }
};

template <class T, bool kGradient>
class Sweep {
  using V = Vec<T>;
  using I = Ints<T>;
  static constexpr int kL = kLanes<T>;
  static constexpr int kRows = 17;
  static constexpr T kNaN = std::numeric_limits<T>::quiet_NaN();
  static constexpr T kInfinity = std::numeric_limits<T>::infinity();
  static constexpr T kEpsilon = T(1e-6);  // m²
  // A sum in T may take so many vectors before it moves on to double.
  static constexpr int64_t kRun = 64 * kL;

 public:
  static int64_t scratch_bytes(int64_t width) { return kRows * stride(width) * sizeof(T); }

  Sweep(const Call& call, int64_t b, void* scratch)
      : call_(call), b_(b), width_(call.width), padded_(stride(call.width) - 2 * kL) {
    T* next = static_cast<T*>(scratch);
    // A vector before the first pixel and one after the last: stencils reach beyond the image.
    auto take = [&](T value) {
      const int64_t length = padded_ + 2 * kL;
      for (int64_t x = 0; x < length; ++x) next[x] = value;
      next += length;
      return next - length + kL;
    };
    for (T*& row : pred_copy_.rows) row = take(0);
    for (T*& row : target_.rows) row = take(kNaN);
    outside_ = take(0);
    missing_ = take(kNaN);
    magnitude_ = take(kNaN);
    closeness_ = take(0);
    for (T*& row : along_x_.rows) row = take(0);
    for (T*& row : along_y_.rows) row = take(0);
    result_ = take(0);
    for (const T*& row : pred_) row = outside_;
  }

  LossSums run(int64_t first, int64_t end) {
    // The gradient of a row takes its neighbours' derivatives, and those their neighbours' depths.
    const int64_t reach = kGradient ? 2 : 1;
    for (int64_t y = first - reach; y < end + reach; ++y) {
      const int64_t centre = y - 1, done = y - 2;
      read_target(enter(y), y >= first && y < end);
      if (centre < first - reach + 1) continue;
      measure_target();
      compare(centre >= first && centre < end);
      if constexpr (kGradient) leave(done, done >= first);
    }
    return {total(recon_), total(edge_), total(smooth_), total(valid_count_), total(inner_count_)};
  }

 private:
  static int64_t stride(int64_t width) { return (width + kL - 1) / kL * kL + 2 * kL; }

  // Moves on to row y; returns its target as it is.
  const T* enter(int64_t y) {
    pred_copy_.advance();
    target_.advance();
    pred_[0] = pred_[1];
    pred_[1] = pred_[2];
    if (y < 0 || y >= call_.height) {
      pred_[2] = outside_;
      return missing_;
    }
    pred_[2] = read_row<T>(call_.pred, b_, y, width_, pred_copy_[2]);
    return read_row<T>(call_.target, b_, y, width_, target_[2]);
  }

  // Cleans the row that has entered, and takes its part in recon. Of the centre row: |g|² of the
  // target, NaN where the erosion takes the pixel away.
  void read_target(const T* entered, bool counts) {
    const V nothing = broadcast<T>(kNaN);
    const T *p = pred_[2], *t0 = target_[0], *t1 = target_[1];
    T *t2 = target_[2], *squares = magnitude_;
    Window<T> sum{nothing, nothing, nothing}, difference{nothing, nothing, nothing};
    V recon{};
    I valid_count{};
    const auto read = [&](int64_t x) __attribute__((always_inline)) {
      const V entering = load<T>(entered + x);
      const I valid = (entering > V{}) & (entering < broadcast<T>(kInfinity));
      const V t = valid ? entering : nothing;
      store<T>(t2 + x, t);
      valid_count -= valid;
      recon += keep<T>(valid, absolute<T>(load<T>(p + x) - entering));
      const V above = load<T>(t0 + x), centre = load<T>(t1 + x);
      sum.advance((above + t) + T(2) * centre);
      // The stencils leave out the pixel itself, the erosion does not.
      difference.advance((t - above) + T(0) * centre);
    };
    const auto measure = [&](int64_t x) __attribute__((always_inline)) {
      const V gx = sum.difference(), gy = difference.smoothed();
      store<T>(squares + x, gx * gx + (gy * gy + kEpsilon));
    };
    read(0);
    for (int64_t begin = kL; begin < padded_; begin += kRun) {
      for (int64_t x = begin; x < padded_ && x < begin + kRun; x += kL) {
        read(x);
        measure(x - kL);
      }
      if (counts) add(recon_, recon);
      recon = V{};
    }
    if (counts) {
      add(recon_, recon);
      valid_count_ += valid_count;
    }
    sum.advance(nothing);
    difference.advance(nothing);
    measure(padded_ - kL);
  }

  // Of the centre row: |g| of the target, and exp(-|g|), 0 where the erosion takes the pixel away.
  void measure_target() {
    T *magnitudes = magnitude_, *closenesses = closeness_;
    for (int64_t x = 0; x < padded_; x += kL) {
      const V magnitude = square_root<T>(load<T>(magnitudes + x));
      store<T>(magnitudes + x, magnitude);
      store<T>(closenesses + x,
               keep<T>(magnitude == magnitude, exp2<T>(magnitude * T(-1.4426950408889634074))));
    }
  }

  // Of the centre row: the terms edge and smooth, and their derivatives with respect to g(pred).
  void compare(bool counts) {
    const V edge_weight = broadcast<T>(static_cast<T>(call_.edge_weight)),
            smooth_weight = broadcast<T>(static_cast<T>(call_.smooth_weight));
    const T *p0 = pred_[0], *p1 = pred_[1], *p2 = pred_[2];
    const T *magnitudes = magnitude_, *closenesses = closeness_;
    along_x_.advance();
    along_y_.advance();
    T *along_x = along_x_[2], *along_y = along_y_[2];
    Window<T> sum{}, difference{};
    I inner_count{};
    V edge{}, smooth{};
    const auto read = [&](int64_t x) __attribute__((always_inline)) {
      const V above = load<T>(p0 + x), below = load<T>(p2 + x);
      sum.advance((above + below) + T(2) * load<T>(p1 + x));
      difference.advance(below - above);
    };
    const auto compare = [&](int64_t x) __attribute__((always_inline)) {
      const V target_magnitude = load<T>(magnitudes + x), closeness = load<T>(closenesses + x);
      const I inner = target_magnitude == target_magnitude;
      inner_count -= inner;
      const V gx = keep<T>(inner, sum.difference()), gy = keep<T>(inner, difference.smoothed());
      const V magnitude = square_root<T>(gx * gx + (gy * gy + kEpsilon));
      const V excess = keep<T>(inner, magnitude - target_magnitude);
      edge += absolute<T>(excess);
      smooth += (absolute<T>(gx) + absolute<T>(gy)) * closeness;
      if constexpr (kGradient) {
        const V push = with_sign<T>(edge_weight, excess) / magnitude;
        const V pull = closeness * smooth_weight;
        store<T>(along_x + x, gx * push + with_sign<T>(pull, gx));
        store<T>(along_y + x, gy * push + with_sign<T>(pull, gy));
      }
    };
    read(0);
    for (int64_t begin = kL; begin < padded_; begin += kRun) {
      for (int64_t x = begin; x < padded_ && x < begin + kRun; x += kL) {
        read(x);
        compare(x - kL);
      }
      if (counts) {
        add(edge_, edge);
        add(smooth_, smooth);
      }
      edge = smooth = V{};
    }
    sum.advance(V{});
    difference.advance(V{});
    compare(padded_ - kL);
    if (counts) {
      add(edge_, edge);
      add(smooth_, smooth);
      inner_count_ += inner_count;
    }
  }

  // The transposed stencils are the stencils with their sign changed: from the derivatives of three
  // rows comes the gradient of the one in the middle, which leaves with the sign of its error.
  void leave(int64_t y, bool wanted) {
    T* row = static_cast<T*>(call_.coded) + (b_ * call_.height + y) * width_;
    T* to = width_ == padded_ && wanted ? row : result_;
    const T *p = pred_[0], *t = target_[0];
    const T *x0 = along_x_[0], *x1 = along_x_[1], *x2 = along_x_[2];
    const T *y0 = along_y_[0], *y2 = along_y_[2];
    Window<T> sum{}, difference{};
    const auto read = [&](int64_t x) __attribute__((always_inline)) {
      sum.advance((load<T>(x0 + x) + load<T>(x2 + x)) + T(2) * load<T>(x1 + x));
      difference.advance(load<T>(y0 + x) - load<T>(y2 + x));
    };
    const auto leave = [&](int64_t x) __attribute__((always_inline)) {
      const V gradient = difference.smoothed() - sum.difference();
      const V error = load<T>(p + x) - load<T>(t + x);
      const I sign = ((error > V{}) & 1) | ((error < V{}) & 3);
      store<T>(to + x, bit_cast<V>((bit_cast<I>(gradient) & ~kSign) | sign));
    };
    read(0);
    for (int64_t x = kL; x < padded_; x += kL) {
      read(x);
      leave(x - kL);
    }
    sum.advance(V{});
    difference.advance(V{});
    leave(padded_ - kL);
    if (wanted && to != row) std::memcpy(row, result_, width_ * sizeof(T));
  }

  static void add(double (&to)[kL], V v) {
    T lanes[kL];
    store<T>(lanes, v);
    for (int lane = 0; lane < kL; ++lane) to[lane] += lanes[lane];
  }
  static double total(const double (&lanes)[kL]) {
    double sum = 0;
    for (double lane : lanes) sum += lane;
    return sum;
  }
  static int64_t total(I lanes) {
    int64_t sum = 0;
    for (int lane = 0; lane < kL; ++lane) sum += lanes[lane];
    return sum;
  }

  const Call& call_;
  const int64_t b_, width_, padded_;
  const T* pred_[3];  // rows as they are stored, or in pred_copy_
  Ring<T> pred_copy_;
  Ring<T> target_;             // cleaned
  T* outside_;                 // zeros
  T* missing_;                 // NaN
  T *magnitude_, *closeness_;  // of the centre row's target
  Ring<T> along_x_, along_y_;  // derivatives with respect to gₓ and g_y of the prediction
  T* result_;
  double recon_[kL]{}, edge_[kL]{}, smooth_[kL]{};
  I valid_count_{}, inner_count_{};
};

template <class T>
int64_t scratch_bytes(const Call& call) {
  return Sweep<T, true>::scratch_bytes(call.width);
}

template <class T>
LossSums sweep(const Call& call, int64_t b, int64_t first, int64_t end, void* scratch) {
  if (call.coded != nullptr) return Sweep<T, true>(call, b, scratch).run(first, end);
  return Sweep<T, false>(call, b, scratch).run(first, end);
}

template <class T, class Stored>
void decode_to(const T* coded, int64_t count, T recon_scale, T edge_scale, Stored* to,
               bool streamed) {
  const Vec<T> positive = broadcast<T>(recon_scale);
  streamed = streamed && aligned(to);
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const bool whole = i + kLanes<T> <= count;
    const Vec<T> value = whole ? load<T>(coded + i) : load_some<T>(coded + i, count - i);
    const Ints<T> bits = bit_cast<Ints<T>>(value), sign = bits & kSign;
    const Vec<T> recon = sign == 1 ? positive : (sign == 3 ? -positive : Vec<T>{});
    const Vec<T> result = bit_cast<Vec<T>>(bits & ~kSign) * edge_scale + recon;
    if (!whole) {
      store_some<T>(to + i, result, count - i);
    } else if constexpr (std::is_same_v<T, Stored>) {
      streamed ? stream<T>(to + i, result) : store<T>(to + i, result);
    } else {
      store_as<T>(to + i, result);
    }
  }
  finish_streams();
}

template <class T>
void decode(const void* coded, int64_t count, double recon_scale, double edge_scale, void* to,
            Storage storage, bool streamed) {
  const T* from = static_cast<const T*>(coded);
  const T recon = static_cast<T>(recon_scale), edge = static_cast<T>(edge_scale);
  if (storage == Storage::kWide)
    decode_to<T>(from, count, recon, edge, static_cast<T*>(to), streamed);
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::kBFloat16) {
      decode_to<T>(from, count, recon, edge, static_cast<BFloat16*>(to), false);
    } else if (storage == Storage::kFloat16) {
      decode_to<T>(from, count, recon, edge, static_cast<Float16*>(to), false);
    }
  }
}

}  // namespace binaural::depth_loss::BINAURAL_ISA
