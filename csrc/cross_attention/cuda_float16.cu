#include "cross_attention/cuda_plan.cuh"

namespace binaural::cross_attention::gpu {
template void forward<__half>(const Call&, cudaStream_t);
template BackwardPlan plan_backward<__half>(const Call&);
template void backward<__half>(const Call&, const BackwardPlan&, cudaStream_t);
}  // namespace binaural::cross_attention::gpu
