// Choose the kernel for a call and launch it. Few instantiations: the extension must build quickly.
#pragma once

#include <algorithm>

#include "cross_attention/cuda_blockwise.cuh"
#include "cross_attention/cuda_on_chip.cuh"
#include "cross_attention/cuda_plan.h"

namespace binaural::cross_attention::gpu {

template <int kD_, int kDv_>
struct Channels {
  static constexpr int kD = kD_, kDv = kDv_;
};

// The padded numbers of channels that kernels are compiled for.
template <class Run>
void with_on_chip_channels(const Call& call, Run run) {
  if (call.problem.d <= 32 && call.problem.dv <= 32) {
    run(Channels<32, 32>{});
  } else {
    run(Channels<64, 64>{});
  }
}

template <class Run>
void with_blockwise_channels(const Call& call, Run run) {
  if (call.problem.d <= 64 && call.problem.dv <= 64) {
    run(Channels<64, 64>{});
  } else if (call.problem.d <= 16) {
    run(Channels<16, 128>{});
  } else {
    run(Channels<128, 128>{});
  }
}

inline bool short_enough(const Call& call) {
  return std::max(call.left.length, call.right.length) <= kOnChipLength &&
         std::max(call.problem.d, call.problem.dv) <= 64;
}

inline Side side_of(const Ear& ear, bool key) {
  Side side;
  side.length = ear.length;
  side.similar = key ? ear.key : ear.query;
  side.value = ear.value;
  side.output = ear.output;
  side.d_output = ear.d_output;
  side.lse = ear.lse;
  side.delta = ear.delta;
  side.new_output = ear.new_output;
  side.d_similar = key ? ear.d_key : ear.d_query;
  side.d_value = ear.d_value;
  return side;
}

inline void add_job(Problem& p, const Side& rows, const Side& columns, bool rows_attend,
                    bool columns_attend, int sign) {
  p.job[p.jobs++] = {rows, columns, rows_attend, columns_attend, sign};
}

// One job that serves both directions, or one for each.
inline Problem on_chip_problem(const Call& call) {
  Problem p = call.problem;
  if (call.shared) {
    add_job(p, side_of(call.left, false), side_of(call.right, false), true, true, 1);
  } else {
    add_job(p, side_of(call.left, false), side_of(call.right, true), true, false, 1);
    add_job(p, side_of(call.right, false), side_of(call.left, true), true, false, -1);
  }
  return p;
}

inline Problem blockwise_forward_problem(const Call& call) {
  Problem p = call.problem;
  add_job(p, side_of(call.left, false), side_of(call.right, !call.shared), true, false, 1);
  add_job(p, side_of(call.right, false), side_of(call.left, !call.shared), true, false, -1);
  return p;
}

// Every job writes the gradients of its rows.
inline Problem blockwise_backward_problem(const Call& call) {
  Problem p = call.problem;
  if (call.shared) {
    add_job(p, side_of(call.left, false), side_of(call.right, false), true, true, 1);
    add_job(p, side_of(call.right, false), side_of(call.left, false), true, true, -1);
  } else {
    add_job(p, side_of(call.left, false), side_of(call.right, true), true, false, 1);
    add_job(p, side_of(call.right, false), side_of(call.left, true), true, false, -1);
    add_job(p, side_of(call.left, true), side_of(call.right, false), false, true, 1);
    add_job(p, side_of(call.right, true), side_of(call.left, false), false, true, -1);
  }
  return p;
}

// The first dimension of a grid: blocks for each problem and head.
inline unsigned grid_width(const Problem& p, int64_t blocks = 1) {
  const int64_t width = p.count * p.heads * blocks;
  check(width < (int64_t{1} << 31) ? cudaSuccess : cudaErrorInvalidConfiguration,
        "fitting so many problems into one grid");
  return static_cast<unsigned>(width);
}

inline int tiles_of(const Problem& p, int rows) {
  int longest = 0;
  for (int j = 0; j < p.jobs; j++) longest = std::max(longest, p.job[j].rows.length);
  return (longest + rows - 1) / rows;
}

// Launch parameters of an on-chip kernel: its largest job's.
struct Shape {
  unsigned threads = 0;
  size_t bytes = 0;
};

template <class Bytes>
Shape on_chip_shape(const Problem& p, Bytes bytes) {
  Shape shape;
  for (int j = 0; j < p.jobs; j++) {
    const int rows = p.job[j].rows.length, columns = p.job[j].columns.length;
    shape.threads = std::max(shape.threads, 2u * round_to_16(rows));
    shape.bytes = std::max(shape.bytes, bytes(rows, columns));
  }
  return shape;
}

template <class T>
void forward(const Call& call, cudaStream_t stream) {
  bool done = false;
  if (short_enough(call)) {
    with_on_chip_channels(call, [&](auto channels) {
      constexpr int kD = channels.kD, kDv = channels.kDv;
      const Problem p = on_chip_problem(call);
      const Shape shape = on_chip_shape(p, on_chip_forward_bytes<T, kD, kDv>);
      if (shape.bytes > call.shared_memory) return;
      launch(on_chip_forward<T, kD, kDv>, dim3(grid_width(p), p.jobs), shape.threads, shape.bytes,
             stream, p);
      done = true;
    });
  }
  if (done) return;
  with_blockwise_channels(call, [&](auto channels) {
    constexpr int kD = channels.kD, kDv = channels.kDv;
    const Problem p = blockwise_forward_problem(call);
    static_assert(kForwardBytes<T, kD, kDv> <= kLeastSharedMemory);
    const int tiles = tiles_of(p, kForwardRows);
    launch(blockwise_forward<T, kD, kDv>, dim3(grid_width(p, tiles), p.jobs), 2 * kForwardRows,
           kForwardBytes<T, kD, kDv>, stream, p, tiles);
  });
}

// Parts of the bias gradient are at most as many as take, for each step, so many floats: a bias of
// every lag would else take a part of O(N) for each of O(N) tiles.
constexpr int64_t kPartsPerStep = 16;

template <class T>
BackwardPlan plan_backward(const Call& call) {
  BackwardPlan plan;
  if (short_enough(call)) {
    with_on_chip_channels(call, [&](auto channels) {
      using C = decltype(channels);
      const Problem p = on_chip_problem(call);
      auto bytes = [](int rows, int columns) {
        return on_chip_backward_bytes<T, C::kD, C::kDv>(rows, columns, true);
      };
      plan.on_chip = on_chip_shape(p, bytes).bytes <= call.shared_memory;
      plan.parts = p.jobs;
    });
  }
  if (!plan.on_chip) {
    const Problem p = blockwise_backward_problem(call);
    const int64_t lags = 2 * int64_t{p.reach} + 1, steps = call.left.length + call.right.length;
    plan.part_blocks = static_cast<int>(
        std::clamp<int64_t>(kPartsPerStep * steps / lags, 1, tiles_of(p, kBackwardRows<T>)));
    plan.parts = plan.part_blocks * (call.shared ? 1 : 2);
  }
  return plan;
}

template <class T>
void backward(const Call& call, const BackwardPlan& plan, cudaStream_t stream) {
  const bool with_bias = call.problem.d_lag_bias_parts != nullptr;
  if (plan.on_chip) {
    with_on_chip_channels(call, [&](auto channels) {
      using C = decltype(channels);
      Problem p = on_chip_problem(call);
      p.parts = plan.parts;
      const Shape shape = on_chip_shape(p, [with_bias](int rows, int columns) {
        return on_chip_backward_bytes<T, C::kD, C::kDv>(rows, columns, with_bias);
      });
      launch(on_chip_backward<T, C::kD, C::kDv>, dim3(grid_width(p), p.jobs), shape.threads,
             shape.bytes, stream, p);
      if (!with_bias) return;
      const auto blocks = static_cast<unsigned>((2 * p.longest + 1 + 31) / 32);
      launch(sum_lag_bias<T>, dim3(blocks, p.heads), 256, 256 * sizeof(float), stream, p);
    });
  } else {
    with_blockwise_channels(call, [&](auto channels) {
      constexpr int kD = channels.kD, kDv = channels.kDv;
      // A little of it is the kernel's own.
      static_assert(blockwise_backward_bytes<T, kD, kDv>(true) + 16 <= kLeastSharedMemory);
      Problem p = blockwise_backward_problem(call);
      p.parts = plan.parts;
      p.part_blocks = plan.part_blocks;
      const int products = tiles_of(p, 64), tiles = tiles_of(p, kBackwardRows<T>);
      launch(output_products<T>, dim3(grid_width(p, products), 2), 128, 0, stream, p, products);
      launch(blockwise_backward<T, kD, kDv>, dim3(grid_width(p, tiles), p.jobs),
             2 * kBackwardRows<T>, blockwise_backward_bytes<T, kD, kDv>(with_bias), stream, p,
             tiles);
    });
  }
}

}  // namespace binaural::cross_attention::gpu
