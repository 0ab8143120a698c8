// The interface of the kernels, which are compiled once per instruction set (common/isa.h).
#pragma once

#include <cstdint>

#include "common/isa.h"

namespace binaural::depth_loss {

// kWide is the compute type: float, or double for a float64 prediction.
enum class Storage { kWide, kBFloat16, kFloat16 };

struct Images {  // [B, H, W]
  const void* data;
  Storage storage;
  int64_t strides[3];  // in elements
};

struct Call {
  Images pred, target;
  int64_t height, width;
  double edge_weight, smooth_weight;
  // [B, H, W] in kWide, or null where no gradient is wanted: the gradient of
  // Σ mₑ (edge_weight · edge + smooth_weight · smooth). The two lowest bits of its mantissa are
  // replaced by the sign of m (pred - target), which is the gradient of Σ m |pred - target|, as 0,
  // 1 or 3 for -1. Σ m and Σ mₑ, which divide the two, are only known after all pixels.
  void* coded;
};

struct LossSums {
  double recon, edge, smooth;  // the numerators of the three terms
  int64_t valid, inner;        // Σ m, Σ mₑ
};

struct Kernels {
  int64_t (*scratch_bytes)(const Call&);
  // Sums over the rows [first, end) of image b, whose part of `coded` is written.
  LossSums (*sweep)(const Call&, int64_t b, int64_t first, int64_t end, void* scratch);
  // The gradient of recon_scale · Σ m |pred - target| plus edge_scale times that in coded [count];
  // past the caches if `streamed`.
  void (*decode)(const void* coded, int64_t count, double recon_scale, double edge_scale, void* to,
                 Storage, bool streamed);
};

struct KernelTables {
  Kernels float32, float64;
};

BINAURAL_DECLARE_TABLES(KernelTables, avx512, kDepthLoss)

}  // namespace binaural::depth_loss
