#include "cross_attention/cuda_plan.cuh"

namespace binaural::cross_attention::gpu {
template void forward<__nv_bfloat16>(const Call&, cudaStream_t);
template BackwardPlan plan_backward<__nv_bfloat16>(const Call&);
template void backward<__nv_bfloat16>(const Call&, const BackwardPlan&, cudaStream_t);
}  // namespace binaural::cross_attention::gpu
