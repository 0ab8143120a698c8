"""Means over blocks of pixels."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from binaural.kernels.dispatch.registration import complete_operator
from binaural.kernels.layers.dispatch import as_map, from_rows, is_covered


def average_pool(x: Tensor, block: tuple[int, int]) -> Tensor:
    """The mean of each block of pixels: `torch.nn.functional.avg_pool2d` of whole blocks.

    The kernels read the map once, and write its gradient once; PyTorch's own gradient takes several times as
    long. On the CPU, for channels-last maps of float32 or bfloat16; all else runs as PyTorch's own operator.

    Args:
        x: [B, C, H, W].
        block: height and width, divisors of H and W.

    Returns:
        [B, C, H / height, W / width].

    Raises:
        ValueError: sides that are no divisors.
    """
    if any(side < 1 or size % side for side, size in zip(block, x.shape[2:], strict=True)):
        raise ValueError(f"block must divide x's height and width, {[*x.shape[2:]]}, got {[*block]}")
    if not is_covered(x):
        return F.avg_pool2d(x, block)
    y: Tensor = _AveragePool.apply(x, *block)
    return y


class _AveragePool(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, height: int, width: int) -> Tensor:
        ctx.block = height, width
        return from_rows(_forward(x, height, width))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return from_rows(_backward(as_map(gradient), *ctx.block)), None, None


def _fake_forward(x: Tensor, height: int, width: int) -> Tensor:
    return x.new_empty((x.shape[0], x.shape[2] // height, x.shape[3] // width, x.shape[1]))


def _fake_backward(gradient: Tensor, height: int, width: int) -> Tensor:
    batch, channels, rows, columns = gradient.shape
    return gradient.new_empty((batch, rows * height, columns * width, channels))


if hasattr(torch.ops.binaural, "average_pool_forward"):
    _forward = complete_operator("average_pool_forward", _fake_forward)
    _backward = complete_operator("average_pool_backward", _fake_backward)
