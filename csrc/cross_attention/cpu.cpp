// The CPU operators: checks of the arguments, allocation, and the order in which tiles run.
#include <algorithm>
#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "common/memory.h"
#include "common/results.h"
#include "cross_attention/cpu_kernel.h"

namespace binaural::cross_attention {
namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using MaybeTensor = std::optional<Tensor>;

constexpr double kLog2E = 1.4426950408889634074;

const Kernels& kernels(ScalarType dtype) {
  return dtype == ScalarType::Double ? best_kernels().float64 : best_kernels().float32;
}

// The tile kernels, or null where the processor has no AMX, or they do not cover the call.
const TileKernels* tile_kernels([[maybe_unused]] const Call& call) {
#if defined(BINAURAL_TILES)
  if (isa() == Isa::kAmx && kernels_amx.covers(call)) return &kernels_amx;
#endif
  return nullptr;
}

Storage storage_of(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float:
      return Storage::kFloat32;
    case ScalarType::Double:
      return Storage::kFloat64;
    case ScalarType::BFloat16:
      return Storage::kBFloat16;
    case ScalarType::Half:
      return Storage::kFloat16;
    default:
      STD_TORCH_CHECK(false, "cross_attention takes float32, float64, bfloat16 and float16");
  }
}

ScalarType compute_type(ScalarType dtype) {
  return dtype == ScalarType::Double ? dtype : ScalarType::Float;
}

int64_t size_of(const Tensor& tensor, int64_t dim) {
  STD_TORCH_CHECK(tensor.dim() == 4, "q_*, k_* and v_* must be [R, time, heads, channels]");
  return tensor.size(dim);
}

// Where row r of a tensor begins.
void* row_of(const Tensor& tensor, int64_t r) {
  return static_cast<char*>(tensor.data_ptr()) + r * tensor.stride(0) * tensor.element_size();
}

// Rows of [rows, time, heads, channels] from r on.
View view_of(const Tensor& tensor, int64_t r = 0) {
  return {row_of(tensor, r), tensor.stride(0), tensor.stride(1), tensor.stride(2)};
}

// The same tensor, or a copy where the channels are not contiguous.
Tensor with_contiguous_channels(const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1;
  return tensor.size(last) > 1 && tensor.stride(last) != 1 ? torch::stable::contiguous(tensor)
                                                           : tensor;
}

// [R, time, heads, channels] as the kernels read it.
class Input {
 public:
  Input(const char* name, const Tensor& tensor, const Tensor& like, int64_t time, int64_t channels)
      : tensor_(tensor) {
    STD_TORCH_CHECK(tensor.is_cpu(), name, " must be on the CPU");
    STD_TORCH_CHECK(tensor.scalar_type() == like.scalar_type(), name, " must have q_left's dtype");
    STD_TORCH_CHECK(tensor.dim() == 4 && tensor.size(0) == like.size(0) && tensor.size(1) == time &&
                        tensor.size(2) == like.size(2) && tensor.size(3) == channels,
                    name,
                    " must have q_left's rows and heads, and the time and channels of its ear");
    tensor_ = with_contiguous_channels(tensor);
  }

  View view() const { return view_of(tensor_); }

 private:
  Tensor tensor_;
};

Tensor new_like(const Tensor& like) {
  return new_result({like.size(0), like.size(1), like.size(2), like.size(3)}, like.scalar_type());
}

template <class T>
void fill_lags(const T* bias, int64_t reach, int64_t max_lag, int64_t heads, int64_t n, int64_t m,
               bool mirrored, T* to, double* largest_bias) {
  for (int64_t head = 0; head < heads; ++head) {
    for (int64_t index = 0; index < n + m - 1 + kLagPadding; ++index) {
      const int64_t lag = mirrored ? m - 1 - index : index - (n - 1);
      const int64_t distance = lag < 0 ? -lag : lag;
      T value = 0;
      if (distance > max_lag) {
        value = kMaskedLag<T>;
      } else if (bias != nullptr && distance <= reach) {
        value = bias[head * (2 * reach + 1) + lag + reach] * static_cast<T>(kLog2E);
        if (value == kMaskedLag<T>) value = std::numeric_limits<T>::quiet_NaN();
        const double magnitude = value < 0 ? -value : value;
        // NaN counts as infinite: comparisons would skip it.
        if (!(magnitude <= *largest_bias)) {
          *largest_bias =
              magnitude == magnitude ? magnitude : std::numeric_limits<double>::infinity();
        }
      }
      *to++ = value;
    }
  }
}

// The tables of what is added to the similarity by lag; see Call::lags.
class Lags {
 public:
  Lags(ScalarType dtype, int64_t heads, int64_t n, int64_t m, const MaybeTensor& lag_bias,
       std::optional<int64_t> max_lag) {
    max_lag_ = n + m;
    if (max_lag.has_value()) {
      STD_TORCH_CHECK(*max_lag >= 0, "max_lag must be at least 0");
      if (*max_lag < max_lag_) max_lag_ = *max_lag;
    }
    if (lag_bias.has_value()) {
      STD_TORCH_CHECK(lag_bias->is_cpu() && lag_bias->scalar_type() == compute_type(dtype) &&
                          lag_bias->dim() == 2 && lag_bias->size(0) == heads &&
                          lag_bias->size(1) % 2 == 1,
                      "lag_bias must be [heads, 2 L + 1] on the CPU, float64 for float64 inputs "
                      "and else float32");
    } else if (!max_lag.has_value()) {
      return;
    }
    tables_ = new_result({2, heads, n + m - 1 + kLagPadding}, compute_type(dtype));
    if (dtype == ScalarType::Double) {
      fill<double>(lag_bias, heads, n, m);
    } else {
      fill<float>(lag_bias, heads, n, m);
    }
  }

  void describe(Call& call) const {
    call.lags[0] = call.lags[1] = nullptr;
    if (tables_.has_value()) {
      for (int ear = 0; ear < 2; ++ear) call.lags[ear] = row_of(*tables_, ear);
    }
    call.largest_bias = largest_bias_;
    call.max_lag = max_lag_;
  }

 private:
  template <class T>
  void fill(const MaybeTensor& lag_bias, int64_t heads, int64_t n, int64_t m) {
    MaybeTensor bias;
    if (lag_bias.has_value()) bias = torch::stable::contiguous(*lag_bias);
    const T* values = bias.has_value() ? static_cast<const T*>(bias->data_ptr()) : nullptr;
    const int64_t reach = bias.has_value() ? bias->size(1) / 2 : 0;
    T* to = static_cast<T*>(tables_->data_ptr());
    fill_lags<T>(values, reach, max_lag_, heads, n, m, false, to, &largest_bias_);
    fill_lags<T>(values, reach, max_lag_, heads, n, m, true, to + tables_->stride(0),
                 &largest_bias_);
  }

  MaybeTensor tables_;
  double largest_bias_ = 0;
  int64_t max_lag_;
};

// A call without pointers to its operands.
Call call_of(ScalarType dtype, bool shared, int64_t r, int64_t heads, int64_t d, int64_t dv,
             int64_t n, int64_t m, double scale, const Lags& lags) {
  STD_TORCH_CHECK(std::min({r, heads, d, dv, n, m}) > 0,
                  "cross_attention needs inputs that are not empty");
  Call call{};
  call.storage = storage_of(dtype);
  call.shared = shared;
  call.r = r;
  call.heads = heads;
  call.d = d;
  call.dv = dv;
  call.scale = scale;
  call.ears[0].length = n;
  call.ears[1].length = m;
  lags.describe(call);
  call.stripes = (std::max(n, m) + kStripe - 1) / kStripe;
  return call;
}

// The inputs of an operator with one tensor per operand.
class Operands {
 public:
  Operands(const Tensor& q_left, const Tensor& q_right, const Tensor& v_left, const Tensor& v_right,
           const MaybeTensor& k_left, const MaybeTensor& k_right, const MaybeTensor& lag_bias,
           std::optional<int64_t> max_lag)
      : n_(size_of(q_left, 1)),
        m_(size_of(q_right, 1)),
        q_left_("q_left", q_left, q_left, n_, size_of(q_left, 3)),
        q_right_("q_right", q_right, q_left, m_, q_left.size(3)),
        v_left_("v_left", v_left, q_left, n_, size_of(v_left, 3)),
        v_right_("v_right", v_right, q_left, m_, v_left.size(3)),
        lags_(q_left.scalar_type(), q_left.size(2), n_, m_, lag_bias, max_lag) {
    STD_TORCH_CHECK(k_left.has_value() == k_right.has_value(),
                    "k_left and k_right must be given both or not at all");
    if (k_left.has_value()) {
      k_left_.emplace("k_left", *k_left, q_left, n_, q_left.size(3));
      k_right_.emplace("k_right", *k_right, q_left, m_, q_left.size(3));
    }
  }

  Call call(const Tensor& q_left, const Tensor& v_left, double scale) const {
    Call call = call_of(q_left.scalar_type(), !k_left_.has_value(), q_left.size(0), q_left.size(2),
                        q_left.size(3), v_left.size(3), n_, m_, scale, lags_);
    call.ears[0].query = q_left_.view();
    call.ears[1].query = q_right_.view();
    call.ears[0].key = call.shared ? call.ears[0].query : k_left_->view();
    call.ears[1].key = call.shared ? call.ears[1].query : k_right_->view();
    call.ears[0].value = v_left_.view();
    call.ears[1].value = v_right_.view();
    return call;
  }

 private:
  int64_t n_, m_;
  Input q_left_, q_right_, v_left_, v_right_;
  std::optional<Input> k_left_, k_right_;
  Lags lags_;
};

int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }

template <class F>
void parallel(int64_t count, F&& f) {
  torch::stable::parallel_for(0, count, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) f(i);
  });
}

// The accumulators of every problem, for problems that are cut into stripes.
class States {
 public:
  States(int64_t problems, int64_t bytes) : bytes_(aligned(bytes)) {
    tensor_ = new_result({problems * bytes_ + 64}, ScalarType::Byte);
    const auto address = reinterpret_cast<uintptr_t>(tensor_.data_ptr());
    base_ = reinterpret_cast<char*>((address + 63) / 64 * 64);
  }
  void* operator[](int64_t problem) const { return base_ + problem * bytes_; }

 private:
  Tensor tensor_;
  char* base_;
  int64_t bytes_;
};

// The problems of a call that are not cut into stripes, each as a whole: f(problem, memory), with
// so much of this thread's memory.
template <class F>
void for_problems(const Call& call, const TileKernels* tiles, int64_t bytes, F&& f) {
  torch::stable::parallel_for(0, call.r * call.heads, 1, [&](int64_t begin, int64_t end) {
    char* memory = static_cast<char*>(thread_scratch(bytes));
    TileRegisters before;
    if (tiles != nullptr) tiles->open(before);
    for (int64_t problem = begin; problem < end; ++problem) f(problem, memory);
    if (tiles != nullptr) tiles->close(before);
  });
}

void run_forward(const Kernels& kernels, const Call& call) {
  const int64_t problems = call.r * call.heads, stripes = call.stripes;
  const int64_t state_bytes = aligned(kernels.forward_state_bytes(call));
  const int64_t scratch_bytes = aligned(kernels.forward_scratch_bytes(call));
  if (stripes == 1) {
    const TileKernels* tiles = tile_kernels(call);
    const int64_t tile_bytes = tiles == nullptr ? 0 : tiles->forward_bytes(call);
    const int64_t bytes = std::max(state_bytes + scratch_bytes, tile_bytes);
    for_problems(call, tiles, bytes, [&](int64_t problem, char* state) {
      if (tiles != nullptr && tiles->forward(call, problem, state)) return;
      char* scratch = state + state_bytes;
      if (!kernels.forward_prepare(call, problem, state)) {
        for (int ear = 0; ear < 2; ++ear)
          kernels.forward_maxima(call, problem, state, ear, 0, scratch);
        kernels.forward_choose_shifts(call, state);
      }
      kernels.forward_tile(call, problem, state, 0, 0, scratch);
      for (int ear = 0; ear < 2; ++ear) kernels.forward_finish(call, problem, state, ear, 0);
    });
    return;
  }
  const States states(problems, state_bytes);
  std::vector<char> safe(problems);
  parallel(problems, [&](int64_t p) { safe[p] = kernels.forward_prepare(call, p, states[p]); });
  parallel(problems * 2 * stripes, [&](int64_t i) {
    const int64_t p = i / (2 * stripes), ear = i / stripes % 2;
    if (safe[p]) return;
    kernels.forward_maxima(call, p, states[p], static_cast<int>(ear), i % stripes,
                           thread_scratch(scratch_bytes));
  });
  parallel(problems, [&](int64_t p) {
    if (!safe[p]) kernels.forward_choose_shifts(call, states[p]);
  });
  for (int64_t stage = 0; stage < stripes; ++stage) {
    parallel(problems * stripes, [&](int64_t i) {
      const int64_t p = i / stripes, row = i % stripes;
      kernels.forward_tile(call, p, states[p], row, (row + stage) % stripes,
                           thread_scratch(scratch_bytes));
    });
  }
  parallel(problems * 2 * stripes, [&](int64_t i) {
    const int64_t p = i / (2 * stripes), ear = i / stripes % 2;
    kernels.forward_finish(call, p, states[p], static_cast<int>(ear), i % stripes);
  });
}

void run_backward(const Kernels& kernels, const Call& call) {
  const int64_t problems = call.r * call.heads, stripes = call.stripes;
  const int64_t state_bytes = aligned(kernels.backward_state_bytes(call));
  const int64_t scratch_bytes = aligned(kernels.backward_scratch_bytes(call));
  const bool lags = call.lag_gradients != nullptr;
  if (stripes == 1) {
    const TileKernels* tiles = tile_kernels(call);
    const int64_t tile_bytes = tiles == nullptr ? 0 : tiles->backward_bytes(call);
    const int64_t bytes = std::max(state_bytes + scratch_bytes, tile_bytes);
    for_problems(call, tiles, bytes, [&](int64_t problem, char* state) {
      if (tiles != nullptr && tiles->backward(call, problem, state)) return;
      kernels.backward_prepare(call, problem, state);
      kernels.backward_tile(call, problem, state, 0, 0, state + state_bytes);
      if (lags) kernels.backward_collect_lags(call, problem, state, 0);
      for (int ear = 0; ear < 2; ++ear) kernels.backward_finish(call, problem, state, ear, 0);
    });
    return;
  }
  const States states(problems, state_bytes);
  parallel(problems, [&](int64_t p) { kernels.backward_prepare(call, p, states[p]); });
  for (int64_t stage = 0; stage < stripes; ++stage) {
    parallel(problems * stripes, [&](int64_t i) {
      const int64_t p = i / stripes, row = i % stripes;
      kernels.backward_tile(call, p, states[p], row, (row + stage) % stripes,
                            thread_scratch(scratch_bytes));
    });
    if (lags) {
      parallel(problems,
               [&](int64_t p) { kernels.backward_collect_lags(call, p, states[p], stage); });
    }
  }
  parallel(problems * 2 * stripes, [&](int64_t i) {
    const int64_t p = i / (2 * stripes), ear = i / stripes % 2;
    kernels.backward_finish(call, p, states[p], static_cast<int>(ear), i % stripes);
  });
}

std::tuple<Tensor, Tensor, Tensor, Tensor> forward(Tensor q_left, Tensor q_right, Tensor v_left,
                                                   Tensor v_right, MaybeTensor k_left,
                                                   MaybeTensor k_right, MaybeTensor lag_bias,
                                                   double scale, std::optional<int64_t> max_lag) {
  const Operands operands(q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, max_lag);
  Call call = operands.call(q_left, v_left, scale);
  const ScalarType dtype = q_left.scalar_type();
  const Tensor o_left = new_like(v_left), o_right = new_like(v_right);
  const Tensor lse_left =
      new_result({call.r, call.heads, call.ears[0].length}, compute_type(dtype));
  const Tensor lse_right =
      new_result({call.r, call.heads, call.ears[1].length}, compute_type(dtype));
  call.ears[0].output = view_of(o_left);
  call.ears[1].output = view_of(o_right);
  call.ears[0].lse = lse_left.data_ptr();
  call.ears[1].lse = lse_right.data_ptr();
  run_forward(kernels(dtype), call);
  return {o_left, o_right, lse_left, lse_right};
}

// d lag_bias [heads, 2 L + 1]: the sum over R of the gradients by lag, in order and in double.
template <class T>
void sum_lag_gradients(const Call& call, Tensor& to) {
  const int64_t n = call.ears[0].length, lags = n + call.ears[1].length - 1;
  const int64_t width = to.size(1), reach = width / 2;
  const T* from = static_cast<const T*>(call.lag_gradients);
  T* result = static_cast<T*>(to.data_ptr());
  parallel(call.heads, [&](int64_t head) {
    for (int64_t i = 0; i < width; ++i) {
      const int64_t index = i - reach + n - 1;
      double total = 0;
      if (index >= 0 && index < lags) {
        for (int64_t r = 0; r < call.r; ++r) total += from[(r * call.heads + head) * lags + index];
      }
      result[head * width + i] = static_cast<T>(total);
    }
  });
}

// Fills in the gradients of a call; d lag_bias, or an empty tensor where there is none.
Tensor run_backward_with_lags(Call& call, ScalarType dtype, const MaybeTensor& lag_bias) {
  if (!lag_bias.has_value()) {
    run_backward(kernels(dtype), call);
    return new_result({0}, dtype);
  }
  const int64_t lags = call.ears[0].length + call.ears[1].length - 1;
  Tensor dlag_bias = new_result({call.heads, lag_bias->size(1)}, compute_type(dtype));
  const Tensor by_lag = new_result({call.r, call.heads, lags}, compute_type(dtype));
  call.lag_gradients = by_lag.data_ptr();
  run_backward(kernels(dtype), call);
  if (dtype == ScalarType::Double) {
    sum_lag_gradients<double>(call, dlag_bias);
  } else {
    sum_lag_gradients<float>(call, dlag_bias);
  }
  return dlag_bias;
}

void check_lse(const char* name, const Tensor& lse, const Call& call, int64_t rows, int64_t length,
               ScalarType dtype) {
  STD_TORCH_CHECK(lse.is_cpu() && lse.scalar_type() == dtype && lse.is_contiguous() &&
                      lse.dim() == 3 && lse.size(0) == rows && lse.size(1) == call.heads &&
                      lse.size(2) == length,
                  name, " must be what the forward returned");
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> backward(
    Tensor do_left, Tensor do_right, Tensor q_left, Tensor q_right, Tensor v_left, Tensor v_right,
    MaybeTensor k_left, MaybeTensor k_right, MaybeTensor lag_bias, Tensor o_left, Tensor o_right,
    Tensor lse_left, Tensor lse_right, double scale, std::optional<int64_t> max_lag) {
  const Operands operands(q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, max_lag);
  Call call = operands.call(q_left, v_left, scale);
  const ScalarType dtype = q_left.scalar_type();
  const int64_t n = call.ears[0].length, m = call.ears[1].length;
  const Input grad_left("do_left", do_left, q_left, n, call.dv),
      grad_right("do_right", do_right, q_left, m, call.dv);
  const Input out_left("o_left", o_left, q_left, n, call.dv),
      out_right("o_right", o_right, q_left, m, call.dv);
  check_lse("lse_left", lse_left, call, call.r, n, compute_type(dtype));
  check_lse("lse_right", lse_right, call, call.r, m, compute_type(dtype));

  // A tensor each: outputs of an operator must not share memory.
  const auto none = [&] { return new_result({0}, dtype); };
  const Tensor dq_left = new_like(q_left), dq_right = new_like(q_right);
  const Tensor dv_left = new_like(v_left), dv_right = new_like(v_right);
  const Tensor dk_left = call.shared ? none() : new_like(*k_left);
  const Tensor dk_right = call.shared ? none() : new_like(*k_right);
  call.ears[0].d_output = grad_left.view();
  call.ears[1].d_output = grad_right.view();
  call.ears[0].output = out_left.view();
  call.ears[1].output = out_right.view();
  call.ears[0].lse = lse_left.data_ptr();
  call.ears[1].lse = lse_right.data_ptr();
  call.ears[0].d_query = view_of(dq_left);
  call.ears[1].d_query = view_of(dq_right);
  call.ears[0].d_value = view_of(dv_left);
  call.ears[1].d_value = view_of(dv_right);
  if (!call.shared) {
    call.ears[0].d_key = view_of(dk_left);
    call.ears[1].d_key = view_of(dk_right);
  }
  const Tensor dlag_bias = run_backward_with_lags(call, dtype, lag_bias);
  return {dq_left, dq_right, dv_left, dv_right, dk_left, dk_right, dlag_bias};
}

// Both ears in one tensor [2 R, time, queries | values | keys], the rows of the left ear first.
// The views of its parts are computed here: slicing tensors would take several operators each.
class Packed {
 public:
  Packed(const Tensor& all, int64_t heads, int64_t query_channels, int64_t value_channels)
      : all_(all), heads_(heads), query_channels_(query_channels), value_channels_(value_channels) {
    STD_TORCH_CHECK(all.is_cpu() && all.dim() == 3 && all.size(0) % 2 == 0 && heads > 0 &&
                        query_channels > 0 && value_channels > 0 && query_channels % heads == 0 &&
                        value_channels % heads == 0,
                    "packed must be [2 R, time, channels] on the CPU, those of queries and values "
                    "divisible by heads");
    // Each is compared first: their sum may overflow.
    const int64_t keys = query_channels <= all.size(2) && value_channels <= all.size(2)
                             ? all.size(2) - query_channels - value_channels
                             : -1;
    STD_TORCH_CHECK(keys == 0 || keys == query_channels,
                    "packed must have channels of queries, values and as many of keys or none");
    has_keys_ = keys > 0;
    all_ = with_contiguous_channels(all);
  }

  Call call(double scale, const Lags& lags) const {
    Call call = call_of(all_.scalar_type(), !has_keys_, rows(), heads_, query_channels_ / heads_,
                        value_channels_ / heads_, time(), time(), scale, lags);
    for (int ear = 0; ear < 2; ++ear) {
      call.ears[ear].query = q(ear);
      call.ears[ear].key = has_keys_ ? k(ear) : q(ear);
      call.ears[ear].value = v(ear);
    }
    return call;
  }

  int64_t rows() const { return all_.size(0) / 2; }  // of an ear
  int64_t time() const { return all_.size(1); }
  View q(int ear) const { return part(ear, 0, query_channels_); }
  View v(int ear) const { return part(ear, query_channels_, value_channels_); }
  View k(int ear) const { return part(ear, query_channels_ + value_channels_, query_channels_); }

 private:
  View part(int ear, int64_t begin, int64_t channels) const {
    char* data = static_cast<char*>(row_of(all_, ear * rows())) + begin * all_.element_size();
    return {data, all_.stride(0), all_.stride(1), channels / heads_};
  }

  Tensor all_;
  int64_t heads_, query_channels_, value_channels_;
  bool has_keys_;
};

std::tuple<Tensor, Tensor> packed_forward(Tensor packed, int64_t heads, int64_t query_channels,
                                          int64_t value_channels, MaybeTensor lag_bias,
                                          double scale, std::optional<int64_t> max_lag) {
  const Packed parts(packed, heads, query_channels, value_channels);
  const ScalarType dtype = packed.scalar_type();
  const int64_t rows = parts.rows(), time = parts.time();
  const Lags lags(dtype, heads, time, time, lag_bias, max_lag);
  Call call = parts.call(scale, lags);
  const Tensor o = new_result({2 * rows, time, heads, call.dv}, dtype);
  const Tensor lse = new_result({2 * rows, heads, time}, compute_type(dtype));
  for (int ear = 0; ear < 2; ++ear) {
    call.ears[ear].output = view_of(o, ear * rows);
    call.ears[ear].lse = row_of(lse, ear * rows);
  }
  run_forward(kernels(dtype), call);
  return {o, lse};
}

std::tuple<Tensor, Tensor> packed_backward(Tensor grad_o, Tensor packed, int64_t heads,
                                           int64_t query_channels, int64_t value_channels,
                                           MaybeTensor lag_bias, Tensor o, Tensor lse, double scale,
                                           std::optional<int64_t> max_lag) {
  const Packed parts(packed, heads, query_channels, value_channels);
  const ScalarType dtype = packed.scalar_type();
  const int64_t rows = parts.rows(), time = parts.time();
  const Lags lags(dtype, heads, time, time, lag_bias, max_lag);
  Call call = parts.call(scale, lags);
  const auto read = [&](const char* name, const Tensor& tensor) {
    STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == dtype && tensor.dim() == 4 &&
                        tensor.size(0) == 2 * rows && tensor.size(1) == time &&
                        tensor.size(2) == heads && tensor.size(3) == call.dv,
                    name,
                    " must be [2 R, time, heads, value channels] on the CPU, of packed's dtype");
    return with_contiguous_channels(tensor);
  };
  const Tensor grad = read("the gradient", grad_o), out = read("o", o);
  check_lse("lse", lse, call, 2 * rows, time, compute_type(dtype));
  const Tensor dpacked = new_result({2 * rows, time, packed.size(2)}, dtype);
  const Packed gradients(dpacked, heads, query_channels, value_channels);
  for (int ear = 0; ear < 2; ++ear) {
    Ear& of = call.ears[ear];
    of.d_output = view_of(grad, ear * rows);
    of.output = view_of(out, ear * rows);
    of.lse = row_of(lse, ear * rows);
    of.d_query = gradients.q(ear);
    of.d_value = gradients.v(ear);
    if (!call.shared) of.d_key = gradients.k(ear);
  }
  return {dpacked, run_backward_with_lags(call, dtype, lag_bias)};
}

}  // namespace
}  // namespace binaural::cross_attention

STABLE_TORCH_LIBRARY_IMPL(binaural, CPU, m) {
  m.impl("cross_attention_forward", TORCH_BOX(&binaural::cross_attention::forward));
  m.impl("cross_attention_backward", TORCH_BOX(&binaural::cross_attention::backward));
  m.impl("cross_attention_packed_forward", TORCH_BOX(&binaural::cross_attention::packed_forward));
  m.impl("cross_attention_packed_backward", TORCH_BOX(&binaural::cross_attention::packed_backward));
}
