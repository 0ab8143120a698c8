// The kernels of one instruction set; the last thing that its translation unit includes.
#include "cross_attention/cpu_backward.h"
#include "cross_attention/cpu_forward.h"

namespace binaural::cross_attention::BINAURAL_ISA {

template <class T>
constexpr Kernels kTable = {
    forward_state_bytes<T>, forward_scratch_bytes<T>, forward_prepare<T>,
    forward_maxima<T>,      forward_settle<T>,        forward_tile<T>,
    forward_finish<T>,      backward_state_bytes<T>,  backward_scratch_bytes<T>,
    backward_prepare<T>,    backward_tile<T>,         backward_collect_lags<T>,
    backward_finish<T>};

}  // namespace binaural::cross_attention::BINAURAL_ISA

namespace binaural::cross_attention {
const KernelPair BINAURAL_TABLE = {BINAURAL_ISA::kTable<float>, BINAURAL_ISA::kTable<double>};
}  // namespace binaural::cross_attention
