// The kernels of one instruction set; its translation unit includes this last.
#include "cross_attention/cpu_backward.h"
#include "cross_attention/cpu_forward.h"

namespace binaural::cross_attention::BINAURAL_ISA {

template <class T>
constexpr Kernels kTable = {.forward_state_bytes = forward_state_bytes<T>,
                            .forward_scratch_bytes = forward_scratch_bytes<T>,
                            .forward_prepare = forward_prepare<T>,
                            .forward_maxima = forward_maxima<T>,
                            .forward_choose_shifts = forward_choose_shifts<T>,
                            .forward_tile = forward_tile<T>,
                            .forward_finish = forward_finish<T>,
                            .backward_state_bytes = backward_state_bytes<T>,
                            .backward_scratch_bytes = backward_scratch_bytes<T>,
                            .backward_prepare = backward_prepare<T>,
                            .backward_tile = backward_tile<T>,
                            .backward_collect_lags = backward_collect_lags<T>,
                            .backward_finish = backward_finish<T>};

}  // namespace binaural::cross_attention::BINAURAL_ISA

namespace binaural::cross_attention {
const KernelTables BINAURAL_TABLE = {.float32 = BINAURAL_ISA::kTable<float>,
                                     .float64 = BINAURAL_ISA::kTable<double>};
}  // namespace binaural::cross_attention
