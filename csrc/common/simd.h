// Vectors of BINAURAL_VECTOR_BYTES, for kernels that are compiled once per instruction set
// (common/isa.h).
//
// They are the compiler's vector types: + - * / and comparisons work lane by lane, a comparison
// gives an integer vector of 0 and -1, `mask ? a : b` selects, and a * b + c becomes a fused
// multiply-add where the target has one.
#pragma once

#include "common/isa.h"
#include "common/storage.h"

#define BINAURAL_INLINE inline __attribute__((always_inline))

// Vectors are only passed between inlined functions, so the calling convention does not matter.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace binaural {

namespace BINAURAL_ISA {

template <class T>
constexpr int kLanes = BINAURAL_VECTOR_BYTES / static_cast<int>(sizeof(T));

template <class T>
struct VectorTypes;
template <>
struct VectorTypes<float> {
  typedef float Vector __attribute__((vector_size(BINAURAL_VECTOR_BYTES)));
  typedef int32_t Integers __attribute__((vector_size(BINAURAL_VECTOR_BYTES)));
};
template <>
struct VectorTypes<double> {
  typedef double Vector __attribute__((vector_size(BINAURAL_VECTOR_BYTES)));
  typedef int64_t Integers __attribute__((vector_size(BINAURAL_VECTOR_BYTES)));
};
typedef uint32_t Words __attribute__((vector_size(BINAURAL_VECTOR_BYTES)));
typedef uint16_t HalfWords __attribute__((vector_size(BINAURAL_VECTOR_BYTES / 2)));

template <class T>
using Vec = typename VectorTypes<T>::Vector;
// Integers as wide as the lanes of Vec<T>, which are also what its comparisons give.
template <class T>
using Ints = typename VectorTypes<T>::Integers;

template <class To, class From>
BINAURAL_INLINE To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

template <class T>
BINAURAL_INLINE Vec<T> broadcast(T value) {
  return value - Vec<T>{};
}

template <class T>
BINAURAL_INLINE Vec<T> load(const T* p) {
  Vec<T> v;
  std::memcpy(&v, p, sizeof(v));
  return v;
}

template <class T>
BINAURAL_INLINE void store(T* p, Vec<T> v) {
  std::memcpy(p, &v, sizeof(v));
}

// Stores past the caches, for results that are only read much later: the line is not fetched first.
// `p` is aligned to a vector. `finish_streams` must follow before another thread may read them.
template <class T>
BINAURAL_INLINE void stream(T* p, Vec<T> v) {
#if defined(BINAURAL_AVX512)
  __builtin_ia32_movntps512(reinterpret_cast<float*>(p), bit_cast<Vec<float>>(v));
#elif defined(__x86_64__) && BINAURAL_VECTOR_BYTES == 32
  __builtin_ia32_movntps256(reinterpret_cast<float*>(p), bit_cast<Vec<float>>(v));
#elif defined(__x86_64__) && BINAURAL_VECTOR_BYTES == 16
  __builtin_ia32_movntps(reinterpret_cast<float*>(p), bit_cast<Vec<float>>(v));
#else
  store<T>(p, v);
#endif
}

BINAURAL_INLINE void finish_streams() {
#if defined(__x86_64__)
  __builtin_ia32_sfence();
#endif
}

template <class T>
BINAURAL_INLINE bool aligned(const T* p) {
  return reinterpret_cast<uintptr_t>(p) % BINAURAL_VECTOR_BYTES == 0;
}

template <class T>
BINAURAL_INLINE Vec<T> maximum(Vec<T> a, Vec<T> b) {
  return a > b ? a : b;
}

// The compiler makes vector instructions of it, given -fno-math-errno.
template <class T>
BINAURAL_INLINE Vec<T> square_root(Vec<T> v) {
  T lanes[kLanes<T>];
  std::memcpy(lanes, &v, sizeof(v));
  for (T& lane : lanes)
    lane = std::is_same_v<T, float> ? __builtin_sqrtf(lane) : __builtin_sqrt(lane);
  std::memcpy(&v, lanes, sizeof(v));
  return v;
}

// The largest of the lanes.
template <class T>
BINAURAL_INLINE T largest(Vec<T> v) {
  T most = v[0];
  for (int lane = 1; lane < kLanes<T>; ++lane) most = v[lane] > most ? v[lane] : most;
  return most;
}

template <class T, int kStep, int... kLane>
BINAURAL_INLINE Vec<T> add_lanes(Vec<T> v, std::integer_sequence<int, kLane...>) {
  return v + __builtin_shufflevector(v, v, (kLane ^ kStep)...);
}

// The sum of the lanes, by halves.
template <class T, int kStep = kLanes<T> / 2>
BINAURAL_INLINE T total(Vec<T> v) {
  v = add_lanes<T, kStep>(v, std::make_integer_sequence<int, kLanes<T>>{});
  if constexpr (kStep > 1) {
    return total<T, kStep / 2>(v);
  } else {
    return v[0];
  }
}

// The left neighbour of each lane of `here`; the vector before it is `left`.
template <class T, int... kLane>
BINAURAL_INLINE Vec<T> left_of(Vec<T> left, Vec<T> here, std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(left, here, (kLanes<T> - 1 + kLane)...);
}

// 0, 1, 2, ... in the lanes.
template <class T>
BINAURAL_INLINE Ints<T> lane_numbers() {
  Ints<T> numbers{};
  for (int lane = 0; lane < kLanes<T>; ++lane) numbers[lane] = lane;
  return numbers;
}

// 2^x with a relative error below 1 ulp or so; x below the smallest normal exponent gives that
// number, x above the largest is not allowed, NaN stays NaN.
template <class T>
BINAURAL_INLINE Vec<T> exp2(Vec<T> x) {
  constexpr bool kSingle = std::is_same_v<T, float>;
  constexpr T kLowest = kSingle ? -126 : -1022;
  constexpr int kMantissa = kSingle ? 23 : 52;
  // Adding 1.5 · 2^mantissa leaves the nearest whole number in the low bits.
  constexpr T kRound = kSingle ? T(0x1.8p23) : T(0x1.8p52);
  // 2^r = 1 + r q(r) on [-½, ½], minimax in relative error: 2.6e-9 and 1.8e-17.
  constexpr float kSingleQ[] = {0.69314721497f,  0.24022652783f,   0.05550310551f,
                                0.009617692973f, 0.0013406643902f, 0.00015594678161f};
  constexpr double kDoubleQ[] = {
      0.6931471805599456968,   0.2402265069591009801,    0.05550410866479039455,
      0.00961812910760700238,  0.001333355815343996475,  0.0001540353044157213033,
      1.52527273851938682e-05, 1.321544267532982214e-06, 1.018064765923413889e-07,
      7.07257041281442351e-09, 4.078071929588336665e-10};
  x = x < broadcast<T>(kLowest) ? broadcast<T>(kLowest) : x;
  const Vec<T> shifted = x + broadcast<T>(kRound);
  const Vec<T> r = x - (shifted - broadcast<T>(kRound));
  Vec<T> p;
  if constexpr (kSingle) {
    p = broadcast<T>(kSingleQ[5]);
    for (int i = 4; i >= 0; --i) p = p * r + kSingleQ[i];
  } else {
    p = broadcast<T>(kDoubleQ[10]);
    for (int i = 9; i >= 0; --i) p = p * r + kDoubleQ[i];
  }
  p = p * r + T(1);
  return bit_cast<Vec<T>>(bit_cast<Ints<T>>(p) + (bit_cast<Ints<T>>(shifted) << kMantissa));
}

// The natural logarithm with an error of 1 ulp or so of itself or of the exponent's part; 0 gives
// -infinity. x is not negative and not subnormal; infinity and NaN stay what they are.
template <class T>
BINAURAL_INLINE Vec<T> logarithm(Vec<T> x) {
  constexpr bool kSingle = std::is_same_v<T, float>;
  constexpr int kMantissa = kSingle ? 23 : 52, kTerms = kSingle ? 5 : 11;
  constexpr T kLn2 = T(0.69314718055994530942), kRootHalf = T(0.70710678118654752440);
  constexpr T kInfinity = std::numeric_limits<T>::infinity();
  // x = 2^e m with m in [√½, √2), log m = 2 artanh(s).
  const Ints<T> bits = bit_cast<Ints<T>>(x);
  const Ints<T> e = (bits - bit_cast<Ints<T>>(broadcast<T>(kRootHalf))) >> kMantissa;
  const Vec<T> m = bit_cast<Vec<T>>(bits - (e << kMantissa));
  const Vec<T> s = (m - T(1)) / (m + T(1)), z = s * s;
  Vec<T> p = broadcast<T>(T(1) / (2 * kTerms - 1));
  for (int i = kTerms - 2; i >= 0; --i) p = p * z + T(1) / (2 * i + 1);
  const Vec<T> y = __builtin_convertvector(e, Vec<T>) * kLn2 + (s + s) * p;
  const Vec<T> edge = x == Vec<T>{} ? broadcast<T>(-kInfinity) : x;
  return (x > Vec<T>{}) & (x < broadcast<T>(kInfinity)) ? y : edge;
}

// --- 16-bit storage
// ---------------------------------------------------------------------------------------

BINAURAL_INLINE Vec<float> widen(Words bits, BFloat16) { return bit_cast<Vec<float>>(bits << 16); }

BINAURAL_INLINE Vec<float> widen(Words bits, Float16) {
  const Words magnitude = bits & 0x7fff;
  // The exponents differ by 112; the product also makes subnormals right.
  const Vec<float> finite = bit_cast<Vec<float>>(magnitude << 13) * 0x1p112f;
  const Words special = (magnitude << 13) | 0x7f800000;  // infinity and NaN
  const Words wide = magnitude >= 0x7c00 ? special : bit_cast<Words>(finite);
  return bit_cast<Vec<float>>(wide | ((bits & 0x8000) << 16));
}

// Rounded to nearest, ties to even.
BINAURAL_INLINE Words narrow(Vec<float> value, BFloat16) {
  const Words bits = bit_cast<Words>(value);
  const Words rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
  return (bits & 0x7fffffff) > 0x7f800000 ? (bits >> 16) | 0x40 : rounded;
}

BINAURAL_INLINE Words narrow(Vec<float> value, Float16) {
  const Words bits = bit_cast<Words>(value);
  const Words magnitude = bits & 0x7fffffff;
  const Words normal = (magnitude + 0xc8000fffu + ((magnitude >> 13) & 1)) >> 13;
  // Adding ½ lets the processor round a subnormal at the right bit.
  const Vec<float> aligned = bit_cast<Vec<float>>(magnitude) + 0.5f;
  const Words subnormal = bit_cast<Words>(aligned) - 0x3f000000;
  const Words special = magnitude > 0x7f800000 ? Words{} + 0x7e00 : Words{} + 0x7c00;
  Words half = magnitude < 0x38800000 ? subnormal : normal;
  half = magnitude >= 0x47800000 ? special : half;
  return half | ((bits >> 16) & 0x8000);
}

// Between 32 and 16 bits a lane. One instruction, which GCC does not make of a conversion.
BINAURAL_INLINE Words extend(HalfWords bits) {
#if defined(BINAURAL_AVX512)
  typedef int16_t From __attribute__((vector_size(32)));
  typedef int32_t To __attribute__((vector_size(64)));
  return bit_cast<Words>(__builtin_ia32_pmovzxwd512_mask(bit_cast<From>(bits), To{}, 0xffff));
#else
  return __builtin_convertvector(bits, Words);
#endif
}
BINAURAL_INLINE HalfWords truncate(Words bits) {
#if defined(BINAURAL_AVX512)
  typedef int32_t From __attribute__((vector_size(64)));
  typedef int16_t To __attribute__((vector_size(32)));
  return bit_cast<HalfWords>(__builtin_ia32_pmovdw512_mask(bit_cast<From>(bits), To{}, 0xffff));
#else
  return __builtin_convertvector(bits, HalfWords);
#endif
}

// Rounded to a storage type. The processor's own conversion takes what is subnormal as zero.
template <class Storage>
BINAURAL_INLINE HalfWords round_to(Vec<float> v, Storage) {
#if defined(BINAURAL_AVX512_BF16)
  if constexpr (std::is_same_v<Storage, BFloat16>) {
    return bit_cast<HalfWords>(__builtin_ia32_cvtneps2bf16_v16sf(v));
  }
#endif
  return truncate(narrow(v, Storage{}));
}

// Load and store kLanes<T> values of a storage type as what one computes in.
template <class T, class Storage>
BINAURAL_INLINE Vec<T> load_as(const Storage* p) {
  if constexpr (std::is_same_v<T, Storage>) {
    return load<T>(p);
  } else {
    HalfWords bits;
    std::memcpy(&bits, p, sizeof(bits));
    return widen(extend(bits), Storage{});
  }
}

template <class T, class Storage>
BINAURAL_INLINE void store_as(Storage* p, Vec<T> v) {
  if constexpr (std::is_same_v<T, Storage>) {
    store<T>(p, v);
  } else {
    const HalfWords bits = round_to(v, Storage{});
    std::memcpy(p, &bits, sizeof(bits));
  }
}

// The same for the first `count` values; the other lanes are 0, or are not written. Masks do that
// in one instruction where the processor has them; a copy in memory takes many times as long.
#if defined(BINAURAL_AVX512)
#define BINAURAL_MASKS
template <class T>
using Mask = std::conditional_t<std::is_same_v<T, float>, uint16_t, uint8_t>;
template <class T>
BINAURAL_INLINE Mask<T> first_lanes(int64_t count) {
  return static_cast<Mask<T>>((1u << count) - 1);
}
BINAURAL_INLINE Vec<float> load_masked(const float* p, Mask<float> mask) {
  return __builtin_ia32_loadups512_mask(p, Vec<float>{}, mask);
}
BINAURAL_INLINE Vec<double> load_masked(const double* p, Mask<double> mask) {
  return __builtin_ia32_loadupd512_mask(p, Vec<double>{}, mask);
}
BINAURAL_INLINE void store_masked(float* p, Vec<float> v, Mask<float> mask) {
  __builtin_ia32_storeups512_mask(p, v, mask);
}
BINAURAL_INLINE void store_masked(double* p, Vec<double> v, Mask<double> mask) {
  __builtin_ia32_storeupd512_mask(p, v, mask);
}
// Of 16 bits a lane.
typedef int16_t Shorts __attribute__((vector_size(32)));
BINAURAL_INLINE HalfWords load_masked(const uint16_t* p, Mask<float> mask) {
  const auto* bits = reinterpret_cast<const int16_t*>(p);
  return bit_cast<HalfWords>(__builtin_ia32_loaddquhi256_mask(bits, Shorts{}, mask));
}
BINAURAL_INLINE void store_masked(uint16_t* p, HalfWords v, Mask<float> mask) {
  __builtin_ia32_storedquhi256_mask(reinterpret_cast<int16_t*>(p), bit_cast<Shorts>(v), mask);
}
#elif defined(__x86_64__) && BINAURAL_VECTOR_BYTES == 32
#define BINAURAL_MASKS
typedef long long LongLongs __attribute__((vector_size(32)));
template <class T>
BINAURAL_INLINE Ints<T> first_lanes(int64_t count) {
  using Lane = std::conditional_t<std::is_same_v<T, float>, int32_t, int64_t>;
  return lane_numbers<T>() < Ints<T>{} + static_cast<Lane>(count);
}
BINAURAL_INLINE Vec<float> load_masked(const float* p, Ints<float> mask) {
  return __builtin_ia32_maskloadps256(reinterpret_cast<const Vec<float>*>(p), mask);
}
BINAURAL_INLINE Vec<double> load_masked(const double* p, Ints<double> mask) {
  return __builtin_ia32_maskloadpd256(reinterpret_cast<const Vec<double>*>(p),
                                      bit_cast<LongLongs>(mask));
}
BINAURAL_INLINE void store_masked(float* p, Vec<float> v, Ints<float> mask) {
  __builtin_ia32_maskstoreps256(reinterpret_cast<Vec<float>*>(p), mask, v);
}
BINAURAL_INLINE void store_masked(double* p, Vec<double> v, Ints<double> mask) {
  __builtin_ia32_maskstorepd256(reinterpret_cast<Vec<double>*>(p), bit_cast<LongLongs>(mask), v);
}
#endif

template <class T, class Storage>
BINAURAL_INLINE Vec<T> load_some(const Storage* p, int64_t count) {
#if defined(BINAURAL_MASKS)
  if constexpr (std::is_same_v<T, Storage>) return load_masked(p, first_lanes<T>(count));
#endif
#if defined(BINAURAL_AVX512)
  if constexpr (!std::is_same_v<T, Storage>) {
    return widen(extend(load_masked(&p->bits, first_lanes<float>(count))), Storage{});
  }
#endif
  Storage padded[kLanes<T>]{};
  std::memcpy(padded, p, count * sizeof(Storage));
  return load_as<T>(padded);
}

template <class T, class Storage>
BINAURAL_INLINE void store_some(Storage* p, Vec<T> v, int64_t count) {
#if defined(BINAURAL_MASKS)
  if constexpr (std::is_same_v<T, Storage>) return store_masked(p, v, first_lanes<T>(count));
#endif
#if defined(BINAURAL_AVX512)
  if constexpr (!std::is_same_v<T, Storage>) {
    return store_masked(&p->bits, round_to(v, Storage{}), first_lanes<float>(count));
  }
#endif
  Storage padded[kLanes<T>];
  store_as<T>(padded, v);
  std::memcpy(p, padded, count * sizeof(Storage));
}

// --- transposition of a square of kLanes<T> vectors
// ---------------------------------------------------------

template <int kStep, int kCount, bool kHigh>
constexpr int interleaved(int lane) {
  const int other = kCount + lane;
  return kHigh ? ((lane & kStep) ? other : lane + kStep) : ((lane & kStep) ? other - kStep : lane);
}

template <class T, int kStep, int... kLane>
BINAURAL_INLINE void exchange(Vec<T>& a, Vec<T>& b, std::integer_sequence<int, kLane...>) {
  constexpr int kCount = kLanes<T>;
  const Vec<T> low = __builtin_shufflevector(a, b, interleaved<kStep, kCount, false>(kLane)...);
  const Vec<T> high = __builtin_shufflevector(a, b, interleaved<kStep, kCount, true>(kLane)...);
  a = low;
  b = high;
}

// With fewer vectors than lanes, transposes each square of as many lanes separately.
template <class T, int kRows, int kStep = kRows / 2>
BINAURAL_INLINE void transpose(Vec<T> (&rows)[kRows]) {
  for (int i = 0; i < kRows; ++i) {
    if ((i & kStep) == 0) {
      exchange<T, kStep>(rows[i], rows[i + kStep], std::make_integer_sequence<int, kLanes<T>>{});
    }
  }
  if constexpr (kStep > 1) transpose<T, kRows, kStep / 2>(rows);
}

#if defined(BINAURAL_AVX512)
// Four numbers in each of those quarters that `lanes` names, the rest as it is in `others`.
BINAURAL_INLINE Vec<float> load_four(const float* p, int lanes, Vec<float> others) {
  typedef float Four __attribute__((vector_size(16)));
  Four four;
  std::memcpy(&four, p, sizeof(four));
  return __builtin_ia32_broadcastf32x4_512(four, others, lanes);
}
#endif

// kLanes<T> rows of as many numbers, `stride` apart, transposed.
template <class T, class Storage>
BINAURAL_INLINE void load_transposed(const Storage* p, int64_t stride,
                                     Vec<T> (&columns)[kLanes<T>]) {
#if defined(BINAURAL_AVX512)
  if constexpr (std::is_same_v<Storage, float> && std::is_same_v<T, float>) {
    // Loading does half of it: a vector takes four numbers of every fourth row.
#pragma GCC unroll 4
    for (int column = 0; column < kLanes<T>; column += 4) {
      Vec<T> fours[4];
#pragma GCC unroll 4
      for (int row = 0; row < 4; ++row) {
        const T* at = p + row * stride + column;
        fours[row] = load_four(at, 0xffff, Vec<T>{});
#pragma GCC unroll 4
        for (int quarter = 1; quarter < 4; ++quarter) {
          fours[row] = load_four(at + 4 * quarter * stride, 0xf << 4 * quarter, fours[row]);
        }
      }
      transpose<T, 4>(fours);
      for (int i = 0; i < 4; ++i) columns[column + i] = fours[i];
    }
    return;
  }
#endif
  for (int i = 0; i < kLanes<T>; ++i) columns[i] = load_as<T>(p + i * stride);
  transpose<T>(columns);
}

// The sum of each vector's lanes: that of the i-th in lane i.
template <class T, int kStep = kLanes<T> / 2>
BINAURAL_INLINE Vec<T> sum_lanes(Vec<T> (&rows)[kLanes<T>]) {
#pragma GCC unroll 16
  for (int i = 0; i < kStep; ++i) {
    exchange<T, kStep>(rows[i], rows[i + kStep], std::make_integer_sequence<int, kLanes<T>>{});
    rows[i] += rows[i + kStep];
  }
  if constexpr (kStep > 1) return sum_lanes<T, kStep / 2>(rows);
  return rows[0];
}

}  // namespace BINAURAL_ISA
}  // namespace binaural
