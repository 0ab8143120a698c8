#include "cross_attention/cuda_plan.cuh"

namespace binaural::cross_attention::gpu {
template void forward<float>(const Call&, cudaStream_t);
template BackwardPlan plan_backward<float>(const Call&);
template void backward<float>(const Call&, const BackwardPlan&, cudaStream_t);
}  // namespace binaural::cross_attention::gpu
