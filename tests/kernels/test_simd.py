"""What the CPU kernels' vectors do with a part of one, on every instruction set that can run here."""

import subprocess
from pathlib import Path

CSRC = Path(__file__).resolve().parents[2] / "csrc"
# What csrc/*/cpu_*.cpp begin with, by the instruction set's name.
UNITS = {
    "generic": "#define BINAURAL_VECTOR_BYTES 16",
    "avx2": '#pragma GCC target("avx2,fma")\n#define BINAURAL_VECTOR_BYTES 32',
    "avx512": '#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,fma")\n'
    "#define BINAURAL_VECTOR_BYTES 64\n#define BINAURAL_AVX512",
    "avx512_on_avx2": '#pragma GCC target("avx2,fma")\n#define BINAURAL_VECTOR_BYTES 64',
}
PROGRAM = """
#include <cstdio>
#include "common/isa.h"
#include "common/storage.h"
%s
#define BINAURAL_ISA tested
#include "common/simd.h"
using namespace binaural::tested;

// Reads and writes the first `count` of a vector, and nothing behind.
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

int main() { std::printf("%%d %%d", errors<float>(), errors<double>()); }
"""


def test_a_part_of_a_vector_is_read_and_written_and_nothing_behind(isa, tmp_path):
    source, program = tmp_path / "simd.cpp", tmp_path / "simd"
    source.write_text(PROGRAM % UNITS[isa])
    subprocess.run(["g++", "-std=c++20", "-O2", f"-I{CSRC}", source, "-o", program], check=True)
    assert subprocess.run([program], check=True, capture_output=True, text=True).stdout == "0 0"
