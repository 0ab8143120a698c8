// One sweep over rows of an image: values and gradient of the loss. Compiled once per instruction
// set, see cpu_table.h.
//
// A row enters; the row above it is then the centre of three, where the Sobel derivatives and the
// terms are computed; the row above that one has seen all its neighbours, and its gradient leaves.
// Work that belongs to one row is cut into passes over it, so that few dependent operations follow
// each other.
//
// A pixel without a measurement is NaN in the cleaned target, and so is all beyond the image: the
// stencil carries NaN to just those pixels that the erosion takes away.
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

// limit · sign(x · slope) for limit ≥ 0, and 0 where x is 0: `slope` is so steep that every
// difference of depths reaches the limit.
template <class T>
BINAURAL_INLINE Vec<T> with_sign(Vec<T> limit, Vec<T> x, Vec<T> slope) {
  const Vec<T> steep = x * slope;
  const Vec<T> below = steep < limit ? steep : limit;
  return below > -limit ? below : -limit;
}

// A weight as with_sign takes it.
template <class T>
struct Weight {
  explicit Weight(double weight)
      : limit(broadcast<T>(static_cast<T>(weight < 0 ? -weight : weight))),
        slope(broadcast<T>(weight < 0 ? -kSteep : kSteep)) {}
  static constexpr T kSteep = std::is_same_v<T, float> ? T(1e30) : T(1e200);
  const Vec<T> limit, slope;
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
  static constexpr int kRows = 23;
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
    for (T*& row : sign_.rows) row = take(0);
    outside_ = take(0);
    target_copy_ = take(kNaN);
    pred_sum_ = take(0);
    pred_difference_ = take(0);
    target_sum_ = take(kNaN);
    target_difference_ = take(kNaN);
    inner_ = take(0);
    magnitude_ = take(0);
    closeness_ = take(0);
    along_x_ = take(0);
    along_y_ = take(0);
    begun_ = take(0);
    carried_ = take(0);
    result_ = take(0);
    for (const T*& row : pred_) row = outside_;
  }

  Sums run(int64_t first, int64_t end) {
    // The gradient of a row takes its neighbours' derivatives, and those their neighbours' depths.
    const int64_t reach = kGradient ? 2 : 1;
    for (int64_t y = first - reach; y < end + reach; ++y) {
      const int64_t centre = y - 1, done = y - 2;
      enter(y, y >= first && y < end);
      if (centre < first - reach + 1) continue;
      target_side(centre >= first && centre < end);
      pred_side(centre >= first && centre < end);
      if constexpr (kGradient) leave(done, done >= first);
    }
    return {total(recon_), total(edge_), total(smooth_),
            (end - first) * padded_ - total(missing_count_), total(inner_count_)};
  }

 private:
  static int64_t stride(int64_t width) { return (width + kL - 1) / kL * kL + 2 * kL; }

  // Reads row y, cleans its target, and adds the column-wise half of the stencils of the row above.
  void enter(int64_t y, bool counts) {
    pred_copy_.advance();
    target_.advance();
    sign_.advance();
    pred_[0] = pred_[1];
    pred_[1] = pred_[2];
    const T* target = target_copy_;
    if (y >= 0 && y < call_.height) {
      pred_[2] = read_row<T>(call_.pred, b_, y, width_, pred_copy_[2]);
      target = read_row<T>(call_.target, b_, y, width_, target_copy_);
    } else {
      pred_[2] = outside_;
      for (int64_t x = 0; x < width_; ++x) target_copy_[x] = kNaN;
    }
    const T *p0 = pred_[0], *p1 = pred_[1], *p2 = pred_[2];
    const T *t0 = target_[0], *t1 = target_[1];
    T *t2 = target_[2], *sign = sign_[2];
    I missing_count{};
    for (int64_t begin = 0; begin < padded_; begin += kRun) {
      V recon{};
      for (int64_t x = begin; x < padded_ && x < begin + kRun; x += kL) {
        V t = load<T>(target + x);
        const V p = load<T>(p2 + x);
        const I missing = ~((t > V{}) & (t < broadcast<T>(kInfinity)));
        t = bit_cast<V>(bit_cast<I>(t) | missing);  // all ones are a NaN
        store<T>(t2 + x, t);
        recon += keep<T>(~missing, absolute<T>(p - t));
        missing_count -= missing;
        if constexpr (kGradient) {
          store<T>(sign + x, bit_cast<V>(((p < t) - (p > t)) & kSign));
        }
        const V above = load<T>(p0 + x), centre = load<T>(p1 + x);
        store<T>(pred_sum_ + x, (above + p) + T(2) * centre);
        store<T>(pred_difference_ + x, p - above);
        const V t_above = load<T>(t0 + x), t_centre = load<T>(t1 + x);
        store<T>(target_sum_ + x, (t_above + t) + T(2) * t_centre);
        // The stencils leave out the pixel itself, the erosion does not.
        store<T>(target_difference_ + x, (t - t_above) + T(0) * t_centre);
      }
      if (counts) add(recon_, recon);
    }
    if (counts) missing_count_ += missing_count;
  }

  // Of the centre row's target: which pixels the erosion leaves, |g|, and exp(-|g|) on those.
  void target_side(bool counts) {
    I count{};
    for (int64_t x = 0; x < padded_; x += kL) {
      const V gx = load<T>(target_sum_ + x + 1) - load<T>(target_sum_ + x - 1);
      const V gy = (load<T>(target_difference_ + x - 1) + load<T>(target_difference_ + x + 1)) +
                   T(2) * load<T>(target_difference_ + x);
      const V square = gx * gx + (gy * gy + kEpsilon);
      const I inner = square == square;
      const V magnitude = square_root<T>(square);
      store<T>(inner_ + x, bit_cast<V>(inner));
      store<T>(magnitude_ + x, magnitude);
      store<T>(closeness_ + x, keep<T>(inner, exp2<T>(magnitude * T(-1.4426950408889634074))));
      count -= inner;
    }
    if (counts) inner_count_ += count;
  }

  // Of the centre row: the terms edge and smooth, and their derivative with respect to g(pred).
  void pred_side(bool counts) {
    const Weight<T> edge_weight(call_.edge_weight), smooth_weight(call_.smooth_weight);
    for (int64_t begin = 0; begin < padded_; begin += kRun) {
      V edge{}, smooth{};
      for (int64_t x = begin; x < padded_ && x < begin + kRun; x += kL) {
        const I inner = bit_cast<I>(load<T>(inner_ + x));
        const V gx = keep<T>(inner, load<T>(pred_sum_ + x + 1) - load<T>(pred_sum_ + x - 1));
        const V gy =
            keep<T>(inner, (load<T>(pred_difference_ + x - 1) + load<T>(pred_difference_ + x + 1)) +
                               T(2) * load<T>(pred_difference_ + x));
        const V magnitude = square_root<T>(gx * gx + (gy * gy + kEpsilon));
        const V excess = keep<T>(inner, magnitude - load<T>(magnitude_ + x));
        const V closeness = load<T>(closeness_ + x);
        edge += absolute<T>(excess);
        smooth += (absolute<T>(gx) + absolute<T>(gy)) * closeness;
        if constexpr (kGradient) {
          const V push = with_sign<T>(edge_weight.limit, excess, edge_weight.slope) / magnitude;
          const V pull = closeness * smooth_weight.limit;
          store<T>(along_x_ + x, gx * push + with_sign<T>(pull, gx, smooth_weight.slope));
          store<T>(along_y_ + x, gy * push + with_sign<T>(pull, gy, smooth_weight.slope));
        }
      }
      if (counts) {
        add(edge_, edge);
        add(smooth_, smooth);
      }
    }
  }

  // The transposed stencils: adds the centre row's derivatives to the row above, which is then
  // done.
  void leave(int64_t y, bool wanted) {
    T* row = static_cast<T*>(call_.coded) + (b_ * call_.height + y) * width_;
    T* to = width_ == padded_ && wanted ? row : result_;
    const T* sign = sign_[0];
    for (int64_t x = 0; x < padded_; x += kL) {
      const V across = load<T>(along_x_ + x - 1) - load<T>(along_x_ + x + 1);
      const V down =
          (load<T>(along_y_ + x - 1) + load<T>(along_y_ + x + 1)) + T(2) * load<T>(along_y_ + x);
      const V gradient = load<T>(begun_ + x) + (across - down);
      store<T>(to + x,
               bit_cast<V>((bit_cast<I>(gradient) & ~kSign) | bit_cast<I>(load<T>(sign + x))));
      store<T>(begun_ + x, load<T>(carried_ + x) + T(2) * across);
      store<T>(carried_ + x, across + down);
    }
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
  Ring<T> target_;  // cleaned
  Ring<T> sign_;    // of m (pred - target), as Call::coded holds it
  T* outside_;      // zeros
  T* target_copy_;
  T *pred_sum_, *pred_difference_, *target_sum_, *target_difference_;  // 1, 2, 1 and -1, 0, 1 down
  T *inner_, *magnitude_, *closeness_;                                 // mₑ as bits; of the target
  T *along_x_, *along_y_;  // derivatives with respect to gₓ and g_y of the prediction
  T *begun_, *carried_;    // of the gradient: the row above the next centre, and the centre row
  T* result_;
  double recon_[kL]{}, edge_[kL]{}, smooth_[kL]{};
  I missing_count_{}, inner_count_{};
};

template <class T>
int64_t scratch_bytes(const Call& call) {
  return Sweep<T, true>::scratch_bytes(call.width);
}

template <class T>
Sums sweep(const Call& call, int64_t b, int64_t first, int64_t end, void* scratch) {
  if (call.coded != nullptr) return Sweep<T, true>(call, b, scratch).run(first, end);
  return Sweep<T, false>(call, b, scratch).run(first, end);
}

template <class T, class Stored>
void decode_to(const T* coded, int64_t count, T recon_scale, T edge_scale, Stored* to) {
  const Vec<T> positive = broadcast<T>(recon_scale);
  for (int64_t i = 0; i < count; i += kLanes<T>) {
    const bool whole = i + kLanes<T> <= count;
    const Vec<T> value = whole ? load<T>(coded + i) : load_some<T>(coded + i, count - i);
    const Ints<T> bits = bit_cast<Ints<T>>(value), sign = bits & kSign;
    const Vec<T> recon = sign == 1 ? positive : (sign == 3 ? -positive : Vec<T>{});
    const Vec<T> result = bit_cast<Vec<T>>(bits & ~kSign) * edge_scale + recon;
    if (whole) {
      store_as<T>(to + i, result);
    } else {
      store_some<T>(to + i, result, count - i);
    }
  }
}

template <class T>
void decode(const void* coded, int64_t count, double recon_scale, double edge_scale, void* to,
            Storage storage) {
  const T* from = static_cast<const T*>(coded);
  const T recon = static_cast<T>(recon_scale), edge = static_cast<T>(edge_scale);
  if (storage == Storage::kWide) decode_to<T>(from, count, recon, edge, static_cast<T*>(to));
  if constexpr (std::is_same_v<T, float>) {
    if (storage == Storage::kBFloat16) {
      decode_to<T>(from, count, recon, edge, static_cast<BFloat16*>(to));
    } else if (storage == Storage::kFloat16) {
      decode_to<T>(from, count, recon, edge, static_cast<Float16*>(to));
    }
  }
}

}  // namespace binaural::depth_loss::BINAURAL_ISA
