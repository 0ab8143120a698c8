"""The Triton kernels on views of one packed tensor: inputs, outputs and gradients without copies."""

import torch
from torch import Tensor

from binaural.kernels.cross_attention.packed_views import unpack_ears
from binaural.kernels.cross_attention.triton_plan import plan_backward, plan_forward
from binaural.kernels.dispatch.launch import empty, launch_all


def forward(
    packed: Tensor,
    heads: int,
    query_channels: int,
    value_channels: int,
    lag_bias: Tensor | None,
    scale: float,
    max_lag: int | None,
) -> tuple[Tensor, Tensor]:
    rows, time, _ = packed.shape
    o = empty((rows, time, heads, value_channels // heads), packed)
    lse = empty((rows, heads, time), packed, torch.float32)
    ears = unpack_ears(packed, heads, query_channels, value_channels)
    o_left, o_right = o.chunk(2)
    lse_left, lse_right = lse.chunk(2)
    q_left, q_right, v_left, v_right, k_left, k_right = ears
    launches, _ = plan_forward(
        q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, scale, max_lag,
        (o_left, o_right), (lse_left, lse_right),
    )  # fmt: skip
    launch_all(launches, packed.device)
    return o, lse


def backward(
    do: Tensor,
    packed: Tensor,
    heads: int,
    query_channels: int,
    value_channels: int,
    lag_bias: Tensor | None,
    o: Tensor,
    lse: Tensor,
    scale: float,
    max_lag: int | None,
) -> tuple[Tensor, Tensor]:
    dpacked = empty(packed.shape, packed)
    sizes = (heads, query_channels, value_channels)
    do_left, do_right = do.chunk(2)
    o_left, o_right = o.chunk(2)
    lse_left, lse_right = lse.chunk(2)
    q_left, q_right, v_left, v_right, k_left, k_right = unpack_ears(packed, *sizes)
    launches, gradients, shares = plan_backward(
        do_left, do_right, q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, o_left, o_right,
        lse_left, lse_right, scale, max_lag, list(unpack_ears(dpacked, *sizes)),
    )  # fmt: skip
    launch_all(launches, packed.device)
    dlag_bias = gradients[6] if shares is None else shares.sum(0)
    return dpacked, empty((0,), packed) if dlag_bias is None else dlag_bias
