"""Batch norm, ReLU and optionally max-pooling as one operation."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import extension_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.maps import as_map, empty_rows, from_rows, runs_on_cpp


def batch_norm_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    pool: bool = False,
    keep: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Compute ReLU(batch norm(x)) and, if `pool`, its maximum over each 2 × 2 pixels.

    Batch norm as in Ioffe and Szegedy, "Batch Normalization", 2015. With `training` it normalises by mean and
    variance of the batch, and updates the running ones in place; without, it normalises by the running ones.

    The C++ kernels read the map twice in the forward pass, and map and gradient twice in the backward pass;
    PyTorch's operators take one pass each for statistics, normalisation, activation, pooling, their gradients
    and the sum of these. The kernels take channels-last maps of float32 or bfloat16, with weights of float32,
    in training; PyTorch's operators run for all others, and on every backend without `training`.

    Args:
        x: [B, C, H, W].
        weight, bias, running_mean, running_var: [C], or [C / n]: then channels c, c + C / n, ... share the
            c-th norm, whose batch is all of their values.
        training: normalise by the statistics of the batch.
        momentum: share of the batch in the updated running statistics.
        eps: added to the variance.
        pool: compute the pooled map too.
        keep: write y; without it the pooled map alone is written, which saves a pass over memory.

    Returns:
        y: [B, C, H, W], or [B, 0, H, W] without `keep`.
        pooled: [B, C, H // 2, W // 2], or None without `pool`.

    Raises:
        ValueError: neither `keep` nor `pool`, training on a single value per channel, a weight whose size
            does not divide C, a bias or running statistics of another size than the weight; a backend
            requested by `use_backend` that cannot run this call.
    """
    if not (pool or keep):
        raise ValueError("batch_norm_relu without keep needs pool: nothing would be computed")
    norms = weight.numel()
    if norms < 1 or x.shape[1] % norms:
        raise ValueError(f"weight must be [C] or of a divisor of C = {x.shape[1]}, got {norms} elements")
    others = {"bias": bias, "running_mean": running_mean, "running_var": running_var}
    for name, other in others.items():
        if other.shape != weight.shape:
            raise ValueError(f"{name} must have weight's shape {list(weight.shape)}, got {list(other.shape)}")
    why_not = None
    if weight.dtype != torch.float32:
        why_not = "its kernels take weights of float32, and these are of another dtype"
    # PyTorch raises for a batch of one value per norm.
    if not (training and x.numel() > norms and runs_on_cpp("batch_norm_relu", x, why_not=why_not)):
        return reference.batch_norm_relu(
            x,
            weight,
            bias,
            running_mean,
            running_var,
            training=training,
            momentum=momentum,
            eps=eps,
            pool=pool,
            keep=keep,
        )
    y, pooled, mean, var = _BatchNormReLU.apply(x, weight, bias, eps, pool, keep)
    values = x.numel() // norms
    with torch.no_grad():
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var * (values / (values - 1)), momentum)
    return y, pooled if pool else None


class _BatchNormReLU(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: bool, keep: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        rows, pooled, mean, var = _forward(x, weight, bias, eps, pool, keep)
        y = from_rows(rows)
        ctx.save_for_backward(x, weight, bias, mean, var)
        ctx.eps, ctx.pool, ctx.keep = eps, pool, keep
        ctx.mark_non_differentiable(mean, var, *([] if keep else [y]))
        ctx.set_materialize_grads(False)
        return y, from_rows(pooled), mean, var

    @staticmethod
    def backward(
        ctx: Any, dy: Tensor | None, dpooled: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        # Compiled code passes gradients also of the outputs that were not written.
        dy, dpooled = dy if ctx.keep else None, dpooled if ctx.pool else None
        if dy is None and dpooled is None:
            return None, None, None, None, None, None
        if dpooled is not None:
            dpooled = dpooled.contiguous(memory_format=torch.channels_last)
        dx, dweight, dbias = _backward(
            None if dy is None else as_map(dy), dpooled, *ctx.saved_tensors, ctx.eps
        )
        return from_rows(dx), dweight, dbias, None, None, None


def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor, eps: float, pool: bool, keep: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, channels, height, width = x.shape
    y = x.new_empty((batch, height, width, channels if keep else 0))
    pooled = x.new_empty((batch, height // 2, width // 2, channels) if pool else (0, 0, 0, channels))
    return y, pooled, torch.empty_like(weight), torch.empty_like(weight)


def _fake_backward(
    dy: Tensor | None,
    dpooled: Tensor | None,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_rows(x), torch.empty_like(weight), torch.empty_like(weight)


_forward = extension_operator("batch_norm_relu_forward", _fake_forward)
_backward = extension_operator("batch_norm_relu_backward", _fake_backward)
