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
    sum_outputs,
)
from binaural.kernels.cross_attention.triton_config import (
    backward_columns,
    backward_config,
    block,
    fits_whole,
    forward_columns,
    forward_config,
    lag_bias_config,
    sum_outputs_config,
    tuned,
    whole_config,
)
from binaural.kernels.cross_attention.triton_whole import backward_whole, forward_whole
from binaural.kernels.dispatch.launch import Grid, Launch, empty


class TunedLaunch(Launch):
    """On a GPU its blocks and warps are tuned; `config` is the fixed choice."""

    def __call__(self) -> None:
        # Tuning may choose differently on another day, and with it the order of a sum.
        if triton.knobs.runtime.interpret or torch.are_deterministic_algorithms_enabled():
            super().__call__()
        else:
            tuned(self.kernel)[self.grid](*self.arguments, **self.constants)


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
    for launch in launches:
        launch()
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
) -> tuple[list[Launch], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The launches of a forward pass, and what they will have written."""
    r, n, heads, d = q_left.shape
    m, dv = q_right.shape[1], v_left.shape[3]
    o_left, o_right = empty(v_left.shape, q_left), empty(v_right.shape, q_left)
    lse_left = empty((r, heads, n), q_left, torch.float32)
    lse_right = empty((r, heads, m), q_left, torch.float32)
    bias, longest = _bias(lag_bias)
    channels = {"D": d, "DV": dv, "BLOCK_D": block(d), "BLOCK_DV": block(dv)}
    if fits_whole(n, m, d, dv, q_left.dtype):
        blocks = {"BLOCK_N": block(n), "BLOCK_M": min(block(m), forward_columns(q_left.dtype))}
        launches: list[Launch] = [
            TunedLaunch(
                forward_whole,
                (r * heads,),
                (
                    *_operands(q_left, q_right, v_left, v_right, k_left, k_right), bias,
                    *_operands(o_left, o_right), lse_left, lse_right, scale, n, m, heads, longest, max_lag,
                ),
                {**channels, **blocks},
                whole_config(blocks, max(d, dv), q_left.dtype),
            )
        ]  # fmt: skip
    else:
        launches = [
            TunedLaunch(
                forward_blocks,
                _per_block(r * heads, q.shape[1]),
                (
                    *_operands(q, k, v), bias, *_operands(o), lse,
                    scale, q.shape[1], k.shape[1], heads, longest, max_lag,
                ),
                {**channels, "SIGN": sign},
                forward_config(q_left.dtype),
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
    for launch in launches:
        launch()
    # The second stage of the bias's gradient: always in the same order, as no atomic would be.
    dlag_bias = None if shares is None else shares.sum(0)
    return tuple(empty((0,), q_left) if g is None else g for g in (*gradients, dlag_bias))


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
) -> tuple[list[Launch], list[Tensor | None], Tensor | None]:
    """The launches of a backward pass, the gradients that they write, and the shares of the bias's.

    The shares [parts, heads, 2 L + 1] are to be summed over the parts.
    """
    r, n, heads, d = q_left.shape
    m, dv = q_right.shape[1], v_left.shape[3]
    inputs = (q_left, q_right, v_left, v_right, k_left, k_right)
    gradients = [None if t is None else empty(t.shape, t) for t in inputs]
    dq_left, dq_right, dv_left, dv_right, dk_left, dk_right = gradients
    bias, longest = _bias(lag_bias)
    lags = 2 * longest + 1
    channels = {"D": d, "DV": dv, "BLOCK_D": block(d), "BLOCK_DV": block(dv)}
    left_and_right = _operands(do_left, do_right, *inputs)
    if fits_whole(n, m, d, dv, q_left.dtype):
        blocks = {"BLOCK_N": block(n), "BLOCK_M": min(block(m), backward_columns(q_left.dtype))}
        parts = triton.cdiv(m, blocks["BLOCK_M"])
        shares = None if bias is None else empty((r * parts, heads, lags), bias)
        launch = TunedLaunch(
            backward_whole,
            (r * heads,),
            (
                *left_and_right, bias, *_operands(o_left if parts > 1 else None), lse_left, lse_right,
                *_operands(*gradients), shares, scale, n, m, heads, longest, max_lag,
            ),
            {**channels, **blocks, "BLOCK_L": min(block(lags), blocks["BLOCK_M"])},
            whole_config(blocks, max(d, dv), q_left.dtype),
        )  # fmt: skip
        return [launch], gradients, shares

    delta_left, delta_right = empty(lse_left.shape, lse_left), empty(lse_right.shape, lse_right)
    launches: list[Launch] = [
        TunedLaunch(
            sum_outputs,
            _per_block(r * heads, do.shape[1]),
            (*_operands(do, o), delta, do.shape[1], heads),
            {"DV": dv, "BLOCK_DV": block(dv)},
            sum_outputs_config(),
        )
        for do, o, delta in ((do_left, o_left, delta_left), (do_right, o_right, delta_right))
    ]
    right_and_left = _operands(do_right, do_left, q_right, q_left, v_right, v_left, k_right, k_left)
    queries_and_keys = channels["BLOCK_D"] * (1 if k_left is None else 2)
    config = backward_config(queries_and_keys + 2 * channels["BLOCK_DV"], q_left.dtype)
    left_statistics = (lse_left, lse_right, delta_left, delta_right)
    right_statistics = (lse_right, lse_left, delta_right, delta_left)
    launches += [
        TunedLaunch(
            backward_blocks,
            _per_block(r * heads, a_count),
            (
                *operands, bias, *statistics, *_operands(*own), scale, a_count, b_count, heads, longest,
                max_lag,
            ),
            {**channels, "SIGN": sign},
            config,
        )
        for operands, statistics, own, a_count, b_count, sign in (
            (left_and_right, left_statistics, (dq_left, dv_left, dk_left), n, m, 1),
            (right_and_left, right_statistics, (dq_right, dv_right, dk_right), m, n, -1),
        )
    ]  # fmt: skip
    if bias is None:
        return launches, gradients, None
    # As many parts as there is work for, in no more memory than the statistics take.
    chunks = max(1, min((n + m) // lags, triton.cdiv(n, 4 * 32)))
    shares = empty((r * chunks, heads, lags), bias)
    launches.append(
        TunedLaunch(
            backward_lag_bias,
            lambda meta: (r * heads * chunks * triton.cdiv(lags, meta["BLOCK"]),),
            (
                *left_and_right, bias, *left_statistics, shares,
                scale, n, m, heads, longest, max_lag, chunks,
            ),
            channels,
            lag_bias_config(q_left.dtype),
        )
    )  # fmt: skip
    return launches, gradients, shares


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
