// The operators of the extension. Their fakes and autograd formulas are in kernels/.
#include <torch/csrc/stable/library.h>

#include "common/memory.h"

STABLE_TORCH_LIBRARY(binaural, m) {
  m.def(
      "cross_attention_forward(Tensor q_left, Tensor q_right, Tensor v_left, Tensor v_right,"
      " Tensor? k_left, Tensor? k_right, Tensor? lag_bias, float scale, int? max_lag)"
      " -> (Tensor o_left, Tensor o_right, Tensor lse_left, Tensor lse_right)");
  m.def(
      "cross_attention_backward(Tensor do_left, Tensor do_right, Tensor q_left, Tensor q_right,"
      " Tensor v_left, Tensor v_right, Tensor? k_left, Tensor? k_right, Tensor? lag_bias,"
      " Tensor o_left, Tensor o_right, Tensor lse_left, Tensor lse_right, float scale,"
      " int? max_lag)"
      " -> (Tensor dq_left, Tensor dq_right, Tensor dv_left, Tensor dv_right, Tensor dk_left,"
      " Tensor dk_right, Tensor dlag_bias)");
  m.def(
      "cross_attention_packed_forward(Tensor packed, int heads, int query_channels,"
      " int value_channels, Tensor? lag_bias, float scale, int? max_lag) -> (Tensor o, Tensor "
      "lse)");
  m.def(
      "cross_attention_packed_backward(Tensor grad_o, Tensor packed, int heads,"
      " int query_channels, int value_channels, Tensor? lag_bias, Tensor o, Tensor lse,"
      " float scale, int? max_lag) -> (Tensor dpacked, Tensor dlag_bias)");
  m.def(
      "edge_aware_loss_forward(Tensor pred, Tensor target, Tensor weights, bool with_gradient)"
      " -> (Tensor total, Tensor terms, Tensor coded, Tensor scales)");
  m.def(
      "edge_aware_loss_backward(Tensor grad_total, Tensor coded, Tensor scales, Tensor pred)"
      " -> Tensor grad_pred");
  m.def(
      "batch_norm_relu_forward(Tensor x, Tensor weight, Tensor bias, float eps, bool pool,"
      " bool keep) -> (Tensor y, Tensor pooled, Tensor mean, Tensor var)");
  m.def(
      "batch_norm_relu_backward(Tensor? dy, Tensor? dpooled, Tensor x, Tensor weight, Tensor bias,"
      " Tensor mean, Tensor var, float eps) -> (Tensor dx, Tensor dweight, Tensor dbias)");
  m.def("upsample_concat_forward(Tensor skip, Tensor below) -> Tensor joined");
  m.def("upsample_concat_backward(Tensor gradient, int height, int width) -> Tensor dbelow");
  m.def("add_mirrored_forward(Tensor both) -> Tensor y");
  m.def("add_mirrored_backward(Tensor gradient) -> Tensor dboth");
  m.def("conv_weight_gradient(Tensor dy, Tensor x) -> Tensor dweight");
  m.def("release_memory() -> ()");
}

STABLE_TORCH_LIBRARY_IMPL(binaural, CompositeExplicitAutograd, m) {
  m.impl("release_memory", TORCH_BOX(&binaural::release_memory));
}
