"""The vector operations of the CPU kernels, on every instruction set that this processor has."""

import subprocess
from pathlib import Path

import pytest

CSRC = Path(__file__).resolve().parents[2] / "csrc"
# How csrc/*/cpu_*.cpp begin, by the instruction set's name.
UNITS = {
    "generic": "#define BINAURAL_VECTOR_BYTES 16",
    "avx2": '#pragma GCC target("avx2,fma")\n#define BINAURAL_VECTOR_BYTES 32',
    "avx512": '#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")\n'
    "#define BINAURAL_VECTOR_BYTES 64\n#define BINAURAL_AVX512",
    "avx512_bf16": '#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,fma")\n'
    "#define BINAURAL_VECTOR_BYTES 64\n#define BINAURAL_AVX512\n#define BINAURAL_AVX512_BF16",
    "avx512_on_avx2": '#pragma GCC target("avx2,fma")\n#define BINAURAL_VECTOR_BYTES 64',
}
HEADER = """
#include <cmath>
#include <cstdio>
#include "common/isa.h"
#include "common/storage.h"
%s
#define BINAURAL_ISA tested
#include "common/simd.h"
using namespace binaural::tested;
"""
PARTS = """
// Reads and writes the first `count` values of a vector, and none beyond them.
template <class T>
int errors() {
  constexpr int kL = kLanes<T>;
  int wrong = 0;
  for (int count = 0; count <= kL; ++count) {
    T from[2 * kL], to[2 * kL];
    for (int i = 0; i < 2 * kL; ++i) from[i] = T(i + 1), to[i] = T(-1);
    const Vec<T> v = load_some<T>(from, count);
    for (int i = 0; i < kL; ++i) wrong += v[i] != (i < count ? T(i + 1) : T(0));
    store_some<T>(to, load<T>(from), count);
    for (int i = 0; i < 2 * kL; ++i) wrong += to[i] != (i < count ? T(i + 1) : T(-1));
  }
  return wrong;
}

int main() { std::printf("%d %d", errors<float>(), errors<double>()); }
"""

HALVES = """
// Every value of a 16-bit type to float and back, in whole vectors and parts of them, and the middle of every
// two neighbours, which is rounded to the even one.
template <class S>
int errors(int infinity) {
  constexpr int kL = kLanes<float>;
#if defined(BINAURAL_AVX512_BF16)
  constexpr bool kFlushes = std::is_same_v<S, binaural::BFloat16>;
#else
  constexpr bool kFlushes = false;
#endif
  int wrong = 0;
  for (int first = 0; first < 65536; first += kL) {
    const int count = 1 + first / kL % kL;
    S from[kL], whole[kL], part[kL];
    for (int i = 0; i < kL; ++i) from[i] = {uint16_t(first + i)}, part[i] = {uint16_t(7)};
    const Vec<float> v = load_as<float>(from), some = load_some<float>(from, count);
    store_as<float>(whole, v);
    store_some<float>(part, v, count);
    for (int i = 0; i < kL; ++i) {
      const int magnitude = from[i].bits & 0x7fff;
      const bool nan = magnitude > infinity;
      // The processor's own conversion takes subnormal numbers as zero.
      const int expected = std::fabs(v[i]) < 0x1p-126f && kFlushes ? from[i].bits & 0x8000 : from[i].bits;
      wrong += nan ? (whole[i].bits & 0x7fff) <= infinity : whole[i].bits != expected;
      wrong += part[i].bits != (i < count ? whole[i].bits : 7);
      wrong += i < count ? !nan && some[i] != v[i] : some[i] != 0;
      if (magnitude >= infinity - 1 || std::fabs(v[i]) < 0x1p-126f) continue;
      S next[kL] = {{uint16_t(from[i].bits + 1)}};
      const float middle = v[i] / 2 + load_as<float>(next)[0] / 2;
      store_as<float>(next, broadcast<float>(middle));
      wrong += next[0].bits != (from[i].bits + (from[i].bits & 1));
    }
  }
  return wrong;
}

int main() {
  std::printf("%d %d", errors<binaural::BFloat16>(0x7f80), errors<binaural::Float16>(0x7c00));
}
"""


LOGARITHMS = """
// The largest error in units of epsilon times max(1, |logarithm|), over all magnitudes and around 1; and
// whether the logarithms of 0, infinity and NaN are right.
template <class T>
double error(bool* edges) {
  const T epsilon = std::numeric_limits<T>::epsilon(), infinity = std::numeric_limits<T>::infinity();
  double most = 0;
  const int reach = std::is_same_v<T, float> ? 125 : 1021;
  for (int i = -20000; i <= 20000; ++i) {
    for (T x : {T(std::exp2(double(reach) * i / 20000)), T(1 + i * 2e-5)}) {
      if (x <= 0) continue;
      const double expected = std::log(double(x)), got = double(logarithm<T>(broadcast<T>(x))[0]);
      const double scale = std::fmax(1, std::fabs(expected));
      most = std::fmax(most, std::fabs(got - expected) / scale / double(epsilon));
    }
  }
  *edges = logarithm<T>(broadcast<T>(0))[0] == -infinity &&
           logarithm<T>(broadcast<T>(infinity))[0] == infinity &&
           std::isnan(logarithm<T>(broadcast<T>(std::numeric_limits<T>::quiet_NaN()))[0]);
  return most;
}

int main() {
  bool single, dual;
  const double errors[] = {error<float>(&single), error<double>(&dual)};
  std::printf("%.2f %.2f %d %d", errors[0], errors[1], single, dual);
}
"""


@pytest.fixture(params=UNITS)
def run(request, force_isa, tmp_path):
    force_isa("avx2" if request.param == "avx512_on_avx2" else request.param)

    def compile_and_run(body):
        source, program = tmp_path / "simd.cpp", tmp_path / "simd"
        source.write_text(HEADER % UNITS[request.param] + body)
        subprocess.run(["g++", "-std=c++20", "-O2", f"-I{CSRC}", source, "-o", program], check=True)
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout

    return compile_and_run


def test_a_part_of_a_vector_is_read_and_written_and_nothing_beyond(run):
    assert run(PARTS) == "0 0"


def test_16_bits_are_widened_and_rounded_to_nearest(run):
    assert run(HALVES) == "0 0"


def test_logarithms(run):
    *errors, single, dual = run(LOGARITHMS).split()
    assert max(map(float, errors)) < 1.5
    assert (single, dual) == ("1", "1")
