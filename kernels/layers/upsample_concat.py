"""Bilinear upsampling written straight into the concatenation with the skip connection."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import complete_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.dispatch import as_map, from_rows, is_covered


def upsample_concat(skip: Tensor, below: Tensor) -> Tensor:
    """`below` upsampled bilinearly to the size of `skip` and put behind its channels.

    The kernels write each pixel of the result once, and the gradient of the skip is a view: on the CPU, for
    channels-last maps of float32 or bfloat16; all else runs as PyTorch's own operators.

    Args:
        skip: [B, C_skip, H, W]; one of no channels tells the size alone.
        below: [B, C_below, h, w].

    Returns:
        [B, C_skip + C_below, H, W].

    Raises:
        ValueError: maps of different batches.
    """
    if skip.shape[0] != below.shape[0]:
        raise ValueError(
            f"skip and below must be of the same batch, got {[*skip.shape]} and {[*below.shape]}"
        )
    tells_size_alone = skip.shape[1] == 0 and skip.dtype == below.dtype
    if not (is_covered(below) and (tells_size_alone or is_covered(skip, below))):
        return reference.upsample_concat(skip, below)
    joined: Tensor = _UpsampleConcat.apply(skip, below)
    return joined


class _UpsampleConcat(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(ctx: Any, skip: Tensor, below: Tensor) -> Tensor:
        ctx.channels, ctx.size = skip.shape[1], below.shape[2:]
        # Inductor may have decomposed what made `below` into another layout than `is_covered` was shown.
        return from_rows(_forward(skip, below.contiguous(memory_format=torch.channels_last)))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        gradient = as_map(gradient)
        of_skip, of_below = gradient[:, : ctx.channels], gradient[:, ctx.channels :]
        return of_skip, from_rows(_backward(as_map(of_below), *ctx.size))


def _fake_forward(skip: Tensor, below: Tensor) -> Tensor:
    batch, channels, height, width = skip.shape
    return skip.new_empty((batch, height, width, channels + below.shape[1]))


def _fake_backward(gradient: Tensor, height: int, width: int) -> Tensor:
    return gradient.new_empty((gradient.shape[0], height, width, gradient.shape[1]))


if hasattr(torch.ops.binaural, "upsample_concat_forward"):
    _forward = complete_operator("upsample_concat_forward", _fake_forward)
    _backward = complete_operator("upsample_concat_backward", _fake_backward)
