"""Launches of the Triton kernels: which kernel, on which grid, with which blocks.

Imported at the first call, as Triton is.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from binaural.kernels.cross_attention.triton_blocks import (
    backward_blocks,
    backward_lag_bias,
    forward_blocks,
    prepare_backward,
)
from binaural.kernels.cross_attention.triton_config import (
    backward_config,
    backward_whole_config,
    block,
    bucket,
    fits_whole,
    forward_config,
    forward_whole_config,
    full_blocks,
    lag_bias_config,
    needs_64_bits,
    prepare_config,
    safe_range,
    sum_near_lags_config,
    whole_constants,
)
from binaural.kernels.cross_attention.triton_near_lags import sum_near_lags
from binaural.kernels.cross_attention.triton_tuning import TunedLaunch
from binaural.kernels.cross_attention.triton_whole import backward_whole, forward_whole
from binaural.kernels.dispatch.launch import Grid, Launch, empty, launch_all


def forward(
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None,
    k_right: Tensor | None,
    lag_bias: Tensor | None,
    scale: float,
    max_lag: int | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    launches, outputs = plan_forward(
        q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, scale, max_lag
    )
    launch_all(launches, q_left.device)
    return outputs


def plan_forward(
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None,
    k_right: Tensor | None,
    lag_bias: Tensor | None,
    scale: float,
    max_lag: int | None,
    outputs: tuple[Tensor, Tensor] | None = None,
    statistics: tuple[Tensor, Tensor] | None = None,
) -> tuple[list[Launch], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The launches of a forward pass, and what they write: o_left, o_right, lse_left and lse_right.

    `outputs` and `statistics` are memory for them, of any strides and contiguous; new if None.
    """
    r, n, heads, d = q_left.shape
    m, dv = q_right.shape[1], v_left.shape[3]
    inputs = (q_left, q_right, v_left, v_right, k_left, k_right)
    o_left, o_right = outputs or (empty(v_left.shape, q_left), empty(v_right.shape, q_left))
    lse_left, lse_right = statistics or (
        empty((r, heads, n), q_left, torch.float32),
        empty((r, heads, m), q_left, torch.float32),
    )
    bias, longest = _bias(lag_bias)
    channels = {"D": d, "DV": dv, "BLOCK_D": block(d), "BLOCK_DV": block(dv)}
    if fits_whole(inputs):
        config = forward_whole_config(n, m, d, dv, q_left.dtype)
        constants = {
            **channels, **whole_constants(n, m, config, lag_bias), "SAFE_RANGE": safe_range(q_left.dtype)
        }  # fmt: skip
        launches: list[Launch] = [
            TunedLaunch(
                forward_whole,
                (r * heads,),
                (
                    *_operands(q_left, q_right, v_left, v_right, k_left, k_right), bias,
                    *_operands(o_left, o_right), lse_left, lse_right,
                    scale, n, m, heads, longest, max_lag, bucket(r * heads),
                ),
                constants,
                config,
            )
        ]  # fmt: skip
    else:
        wide, full = needs_64_bits(*inputs, o_left, o_right), full_blocks(n, m)
        launches = [
            TunedLaunch(
                forward_blocks,
                _per_block(r * heads, q.shape[1]),
                (
                    *_operands(q, k, v), bias, *_operands(o), lse,
                    scale, q.shape[1], k.shape[1], heads, longest, max_lag, bucket(r * heads),
                ),
                {**channels, "SIGN": sign, "FULL": full, "WIDE": wide},
                *forward_config(full and bias is None and max_lag is None, q_left.dtype),
            )
            for q, k, v, o, lse, sign in (
                (q_left, q_right if k_right is None else k_right, v_right, o_left, lse_left, 1),
                (q_right, q_left if k_left is None else k_left, v_left, o_right, lse_right, -1),
            )
        ]  # fmt: skip
    return launches, (o_left, o_right, lse_left, lse_right)


def backward(
    do_left: Tensor,
    do_right: Tensor,
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None,
    k_right: Tensor | None,
    lag_bias: Tensor | None,
    o_left: Tensor,
    o_right: Tensor,
    lse_left: Tensor,
    lse_right: Tensor,
    scale: float,
    max_lag: int | None,
) -> tuple[Tensor, ...]:
    launches, gradients, shares = plan_backward(
        do_left, do_right, q_left, q_right, v_left, v_right, k_left, k_right, lag_bias,
        o_left, o_right, lse_left, lse_right, scale, max_lag,
    )  # fmt: skip
    launch_all(launches, q_left.device)
    if shares is not None:
        gradients[6] = shares.sum(0)
    return tuple(empty((0,), q_left) if g is None else g for g in gradients)


def plan_backward(
    do_left: Tensor,
    do_right: Tensor,
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None,
    k_right: Tensor | None,
    lag_bias: Tensor | None,
    o_left: Tensor,
    o_right: Tensor,
    lse_left: Tensor,
    lse_right: Tensor,
    scale: float,
    max_lag: int | None,
    gradients: list[Tensor | None] | None = None,
) -> tuple[list[Launch], list[Tensor | None], Tensor | None]:
    """The launches of a backward pass, the gradients in the order of the inputs, and shares of the bias's
    gradient.

    `gradients` is memory for those of q, v and k, with a stride of 1 between channels; new if None. If there
    are shares [parts, heads, 2 L + 1], the gradient of the bias is their sum over the parts, else the
    launches write it.
    """
    r, n, heads, d = q_left.shape
    m, dv = q_right.shape[1], v_left.shape[3]
    inputs = (q_left, q_right, v_left, v_right, k_left, k_right)
    gradients = gradients or [None if t is None else empty(t.shape, t) for t in inputs]
    dq_left, dq_right, dv_left, dv_right, dk_left, dk_right = gradients
    written = [*gradients, None]
    bias, longest = _bias(lag_bias)
    lags = 2 * longest + 1
    channels = {"D": d, "DV": dv, "BLOCK_D": block(d), "BLOCK_DV": block(dv)}
    left_and_right = _operands(do_left, do_right, *inputs)
    if fits_whole((do_left, do_right, o_left, o_right, *inputs)):
        config, narrow = backward_whole_config(n, m, d, dv, q_left.dtype)
        constants = whole_constants(n, m, config, lag_bias)
        shares = None
        if constants["NEAR"]:
            shares = empty((r, heads, 3, constants["WARPS"], 8, 8), lse_left)
        elif bias is not None:
            shares = empty((r, heads, lags), lse_left)
        launches: list[Launch] = [
            TunedLaunch(
                backward_whole,
                (r * heads,),
                (
                    *left_and_right, bias, *_operands(o_left, o_right), lse_left, lse_right,
                    *_operands(*gradients), shares, scale, n, m, heads, longest, max_lag, bucket(r * heads),
                ),
                {
                    **channels, **constants,
                    "STEPS_RIGHT": block(m), "BLOCK_L": min(block(lags), config["BLOCK_M"]),
                },
                config,
                narrow,
            )
        ]  # fmt: skip
        if not constants["NEAR"]:
            return launches, written, shares
        written[6] = empty((heads, lags), lse_left)
        launches.append(
            Launch(
                sum_near_lags,
                (heads * lags,),
                (shares, written[6], r, heads, longest),
                {"WARPS": constants["WARPS"]},
                sum_near_lags_config(),
            )
        )
        return launches, written, None

    delta_left, delta_right = empty(lse_left.shape, lse_left), empty(lse_right.shape, lse_right)
    log2_lse_left, log2_lse_right = empty(lse_left.shape, lse_left), empty(lse_right.shape, lse_right)
    wide = needs_64_bits(do_left, do_right, o_left, o_right, *inputs, *gradients)
    full = full_blocks(n, m)
    launches = [
        TunedLaunch(
            prepare_backward,
            _per_block(r * heads, do.shape[1]),
            (*_operands(do, o), lse, delta, log2_lse, do.shape[1], heads, bucket(r * heads)),
            {"DV": dv, "BLOCK_DV": block(dv), "WIDE": wide},
            prepare_config(),
        )
        for do, o, lse, delta, log2_lse in (
            (do_left, o_left, lse_left, delta_left, log2_lse_left),
            (do_right, o_right, lse_right, delta_right, log2_lse_right),
        )
    ]
    right_and_left = _operands(do_right, do_left, q_right, q_left, v_right, v_left, k_right, k_left)
    queries_and_keys = channels["BLOCK_D"] * (1 if k_left is None else 2)
    plain = full and bias is None and max_lag is None
    configs = backward_config(queries_and_keys + 2 * channels["BLOCK_DV"], plain, q_left.dtype)
    left_statistics = (log2_lse_left, log2_lse_right, delta_left, delta_right)
    right_statistics = (log2_lse_right, log2_lse_left, delta_right, delta_left)
    launches += [
        TunedLaunch(
            backward_blocks,
            _per_block(r * heads, a_count),
            (
                *operands, bias, *statistics, *_operands(*own),
                scale, a_count, b_count, heads, longest, max_lag, bucket(r * heads),
            ),
            {**channels, "SIGN": sign, "FULL": full, "WIDE": wide},
            *configs,
        )
        for operands, statistics, own, a_count, b_count, sign in (
            (left_and_right, left_statistics, (dq_left, dv_left, dk_left), n, m, 1),
            (right_and_left, right_statistics, (dq_right, dv_right, dk_right), m, n, -1),
        )
    ]  # fmt: skip
    if bias is None:
        return launches, written, None
    # As many parts as there is work for, in no more memory than the statistics take.
    chunks = max(1, min((n + m) // lags, triton.cdiv(n, 4 * 32)))
    shares = empty((r * chunks, heads, lags), bias)
    launches.append(
        TunedLaunch(
            backward_lag_bias,
            lambda meta: (r * heads * chunks * triton.cdiv(lags, meta["BLOCK"]),),
            (
                *left_and_right, bias, *left_statistics, shares,
                scale, n, m, heads, longest, max_lag, chunks, bucket(r * heads),
            ),
            {**channels, "WIDE": wide},
            lag_bias_config(q_left.dtype),
        )
    )  # fmt: skip
    return launches, written, shares


def _per_block(problems: int, count: int) -> Grid:
    return lambda meta: (problems * triton.cdiv(count, meta["BLOCK_A"]),)


def _bias(lag_bias: Tensor | None) -> tuple[Tensor | None, int]:
    """The bias as the kernels read it, and its longest lag."""
    return (None, 0) if lag_bias is None else (lag_bias.contiguous(), lag_bias.shape[1] // 2)


def _operands(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Each tensor [R, time, heads, channels], followed by the strides of its first three dimensions."""
    arguments: list[Any] = []
    for tensor in tensors:
        if tensor is not None and tensor.stride(3) != 1:
            tensor = tensor.contiguous()
        arguments += [tensor, None if tensor is None else tensor.stride()[:3]]
    return tuple(arguments)
