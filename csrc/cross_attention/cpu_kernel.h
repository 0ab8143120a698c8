// The arguments of the CPU kernels, and the table of functions of each instruction set.
//
// Long problems are cut into stripes of kStripe rows and columns of the similarity matrix, and a
// tile is one row stripe against one column stripe. In stage s the row stripe p meets the column
// stripe p + s (modulo their number): no two tiles of a stage share a row or a column, so that they
// run in parallel and add to the accumulators in an order that does not depend on the number of
// threads.
#pragma once

#include "common/isa.h"

namespace binaural::cross_attention {

constexpr int64_t kStripe = 256;
// Padding after each row of lags, so that a vector may begin at the last lag.
constexpr int64_t kLagPadding = 64;

// Marks pairs that max_lag masks. A bias of +inf is kept as NaN, which gives the same results.
template <class T>
constexpr T kMaskedLag = std::numeric_limits<T>::infinity();

enum class Storage { kFloat32, kFloat64, kBFloat16, kFloat16 };

// [R, time, heads, channels] with contiguous channels; strides in elements.
struct View {
  void* data = nullptr;
  int64_t r_stride = 0, time_stride = 0, head_stride = 0;
};

struct Ear {
  int64_t length;                // N or M
  View query, key, value;        // key is query where the similarity is shared
  View output, d_output;         // d_output only in the backward
  void* lse;                     // [R, heads, length], of the compute type
  View d_query, d_key, d_value;  // only in the backward; d_key only where keys are separate
};

struct Call {
  Storage storage;
  bool shared;
  int64_t r, heads, d, dv;
  double scale;
  Ear ears[2];  // left, right

  // What is added to the logits in units of log2, by lag: the bias, or kMaskedLag where max_lag
  // masks the pair. lags[0] is indexed by column − row + N − 1 for left queries, lags[1] is its
  // mirror for right queries; [heads, N + M − 1 + kLagPadding] each, null where every lag is alike.
  const void* lags[2];
  double largest_bias;  // of |bias|, in units of log2
  int64_t max_lag;      // pairs beyond it may be skipped

  int64_t stripes;      // of the longer sequence
  void* lag_gradients;  // [R, heads, N + M − 1], by column − row + N − 1; null if not wanted
};

// One copy per instruction set and per type that is computed in. `state` is one problem's
// accumulators, `scratch` one thread's; both are aligned to 64 bytes and uninitialised at first.
struct Kernels {
  int64_t (*forward_state_bytes)(const Call&);
  int64_t (*forward_scratch_bytes)(const Call&);
  // Clears the accumulators, and decides whether exponentials are safe without looking for maxima.
  // Returns whether they are; if not, `forward_maxima` and then `forward_choose_shifts` must run.
  bool (*forward_prepare)(const Call&, int64_t problem, void* state);
  void (*forward_maxima)(const Call&, int64_t problem, void* state, int ear, int64_t stripe,
                         void* scratch);
  void (*forward_choose_shifts)(const Call&, void* state);
  void (*forward_tile)(const Call&, int64_t problem, void* state, int64_t row_stripe,
                       int64_t column_stripe, void* scratch);
  void (*forward_finish)(const Call&, int64_t problem, void* state, int ear, int64_t stripe);

  int64_t (*backward_state_bytes)(const Call&);
  int64_t (*backward_scratch_bytes)(const Call&);
  void (*backward_prepare)(const Call&, int64_t problem, void* state);
  void (*backward_tile)(const Call&, int64_t problem, void* state, int64_t row_stripe,
                        int64_t column_stripe, void* scratch);
  // Adds up the lag gradients of the tiles of one stage.
  void (*backward_collect_lags)(const Call&, int64_t problem, void* state, int64_t stage);
  void (*backward_finish)(const Call&, int64_t problem, void* state, int ear, int64_t stripe);
};

// The kernels of one instruction set, by the type that they compute in.
struct KernelTables {
  Kernels float32, float64;
};

BINAURAL_DECLARE_TABLES(KernelTables, avx512, kCrossAttention)

// A thread's configuration of the tile registers.
struct alignas(64) TileRegisters {
  char layout[64];
};

// Kernels for processors with AMX, for a whole problem, if they cover the call. `memory` is
// aligned to 64 bytes.
struct TileKernels {
  bool (*covers)(const Call&);
  int64_t (*forward_bytes)(const Call&);
  // Returns false without doing anything where one exponential cannot serve both directions.
  bool (*forward)(const Call&, int64_t problem, void* memory);
  int64_t (*backward_bytes)(const Call&);
  bool (*backward)(const Call&, int64_t problem, void* memory);
  // Called on a thread before its first and after its last problem.
  void (*open)(TileRegisters& before);
  void (*close)(const TileRegisters& before);
};

#if defined(BINAURAL_TILES)
extern const TileKernels kernels_amx;
#endif

}  // namespace binaural::cross_attention
