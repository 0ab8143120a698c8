"""Batch norm, ReLU and, where wanted, max-pooling as one operation."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import complete_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.dispatch import as_map, empty_rows, from_rows, is_covered


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
    """ReLU(batch norm(x)), and its largest of each 2 × 2 pixels.

    Batch norm as in Ioffe and Szegedy, "Batch Normalization", 2015. With `training` it takes mean and
    variance of the batch and moves the running ones towards them by `momentum`, in place; without, it takes
    the running ones.

    The kernels read the map twice forward, and twice with the gradients backward, in place of one pass for
    each of statistics, normalisation, activation, pooling, and their gradients and the sum of those. They
    train on channels-last maps of float32 or bfloat16 on the CPU; all else runs as PyTorch's own operators.

    Args:
        x: [B, C, H, W].
        weight, bias, running_mean, running_var: [C], or [C / n]: then channels c, c + C / n, ... share the
            c-th norm, whose batch is all of their values.
        training: take the statistics of the batch.
        momentum: of the running statistics.
        eps: added to the variance.
        pool: compute the pooled map too.
        keep: write y; where nobody reads it, the pooled map alone saves a pass over memory.

    Returns:
        y: [B, C, H, W], or [B, 0, H, W] if it is not kept.
        pooled: [B, C, H // 2, W // 2], or None.

    Raises:
        ValueError: neither y nor the pooled map is wanted, training on a single value per channel, a weight
            whose size does not divide C, or what belongs to the norms in another size.
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
    if not (training and is_covered(x) and x.numel() > norms and weight.dtype == torch.float32):
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
    move_running(running_mean, running_var, mean, var, momentum, x.numel() // norms)
    return y, pooled if pool else None


@torch.no_grad()
def move_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, momentum: float, values: int
) -> None:
    """Move the running statistics towards those of a batch of so many values, in place."""
    running_mean.lerp_(mean, momentum)
    running_var.lerp_(var * (values / (values - 1)), momentum)


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
        # Compiled, gradients of what is not there come in all the same.
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


if hasattr(torch.ops.binaural, "batch_norm_relu_forward"):
    _forward = complete_operator("batch_norm_relu_forward", _fake_forward)
    _backward = complete_operator("batch_norm_relu_backward", _fake_backward)
