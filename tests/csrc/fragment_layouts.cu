// Do the emulated mma.sync.m16n8k16 and ldmatrix hold their matrices where CuTe, NVIDIA's own
// library, says that the instructions do? Of mma, CuTe's layouts map (lane, value) to an index into
// the column-major matrix; of ldmatrix, (lane, bit) to a bit of the rows that the lanes give, one
// after the other.
// clang-format off
#include "cuda_emulation.h"
#include "common/cuda_launch.cuh"
#include "common/warp_matrix.cuh"
// clang-format on
#include <cute/atom/copy_traits_sm75.hpp>
#include <cute/atom/mma_traits_sm80.hpp>
#include <cute/layout.hpp>
#include <string>

namespace {

template <class T>
__global__ void multiply(float* c, const uint32_t* a, const uint32_t* b) {
  const int lane = threadIdx.x;
  float sum[4] = {};
  const uint32_t left[4] = {a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]};
  binaural::multiply_add<T>(sum, left, b[2 * lane], b[2 * lane + 1]);
  for (int i = 0; i < 4; i++) c[4 * lane + i] = sum[i];
}

// The registers of one operand, every lane's.
template <class T>
struct Fragment {
  explicit Fragment(int registers) : bits(32 * registers) {}
  void set(int lane, int value, float x, int registers) {
    const T element = binaural::from_float<T>(x);
    std::memcpy(reinterpret_cast<char*>(&bits[registers * lane + value / 2]) + 2 * (value % 2),
                &element, 2);
  }
  std::vector<uint32_t> bits;
};

// Random whole numbers are put where CuTe says, and the products are found where CuTe says.
template <class T, class Traits>
bool multiplies_as_cute_says() {
  const typename Traits::ALayout a_layout;
  const typename Traits::BLayout b_layout;
  const typename Traits::CLayout c_layout;
  float left[16][16], right[16][8];
  unsigned state = 1;
  auto random = [&] { return static_cast<float>((state = state * 1664525u + 1013904223u) >> 28); };
  Fragment<T> a(4), b(2);
  for (int lane = 0; lane < 32; lane++) {
    for (int value = 0; value < 8; value++) {
      const int index = a_layout(lane, value);
      left[index % 16][index / 16] = random();
      a.set(lane, value, left[index % 16][index / 16], 4);
    }
    for (int value = 0; value < 4; value++) {
      const int index = b_layout(lane, value);  // of the [n, k] matrix
      right[index / 8][index % 8] = random();
      b.set(lane, value, right[index / 8][index % 8], 2);
    }
  }
  std::vector<float> c(128);
  binaural::launch(multiply<T>, 1, 32, 0, nullptr, c.data(), a.bits.data(), b.bits.data());
  for (int lane = 0; lane < 32; lane++) {
    for (int value = 0; value < 4; value++) {
      const int index = c_layout(lane, value), row = index % 16, column = index / 16;
      float sum = 0;
      for (int k = 0; k < 16; k++) sum += left[row][k] * right[k][column];
      if (c[4 * lane + value] != sum) return false;  // whole numbers: exact
    }
  }
  return true;
}

template <bool kTransposed>
__global__ void load(uint32_t* out) {
  DYNAMIC_SHARED(uint16_t, tile);  // row i of 8 elements is the one that lane i gives
  for (int i = 0; i < 8; i++)
    tile[8 * threadIdx.x + i] = static_cast<uint16_t>(8 * threadIdx.x + i);
  __syncwarp();
  uint32_t registers[4];
  binaural::load_matrices<kTransposed>(registers, tile + 8 * threadIdx.x);
  for (int q = 0; q < 4; q++) out[4 * threadIdx.x + q] = registers[q];
}

template <bool kTransposed, class Traits>
bool loads_as_cute_says() {
  const typename Traits::DstLayout layout;
  std::vector<uint32_t> out(128);
  binaural::launch(load<kTransposed>, 1, 32, 512, nullptr, out.data());
  for (int lane = 0; lane < 32; lane++) {
    for (int value = 0; value < 8; value++) {
      const uint32_t element = out[4 * lane + value / 2] >> (16 * (value % 2)) & 0xffff;
      if (layout(lane, 16 * value) != static_cast<int>(16 * element)) return false;
    }
  }
  return true;
}

}  // namespace

int main() {
  using BFloat16 = cute::MMA_Traits<cute::SM80_16x8x16_F32BF16BF16F32_TN>;
  using Float16 = cute::MMA_Traits<cute::SM80_16x8x16_F32F16F16F32_TN>;
  std::puts(multiplies_as_cute_says<__nv_bfloat16, BFloat16>() &&
                    multiplies_as_cute_says<__half, Float16>() &&
                    loads_as_cute_says<false, cute::Copy_Traits<cute::SM75_U32x4_LDSM_N>>() &&
                    loads_as_cute_says<true, cute::Copy_Traits<cute::SM75_U16x8_LDSM_T>>()
                ? "agrees"
                : "differs");
}
