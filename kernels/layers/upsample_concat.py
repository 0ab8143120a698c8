"""Bilinear upsampling, written in place into the concatenation with a skip connection."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import extension_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.maps import as_map, from_rows, runs_on_cpp


def upsample_concat(skip: Tensor, below: Tensor) -> Tensor:
    """Upsample `below` bilinearly to the size of `skip`, and concatenate the channels of both.

    The C++ kernels write each pixel of the result once, and the gradient of `skip` is a view; they take
    channels-last maps of float32 or bfloat16. PyTorch's operators run for all others.

    Args:
        skip: [B, C_skip, H, W]; with C_skip = 0 it only sets the size.
        below: [B, C_below, h, w].

    Returns:
        [B, C_skip + C_below, H, W].

    Raises:
        ValueError: maps of different batches; a backend requested by `use_backend` that cannot run this call.
    """
    if skip.shape[0] != below.shape[0]:
        raise ValueError(
            f"skip and below must be of the same batch, got {[*skip.shape]} and {[*below.shape]}"
        )
    # A skip without channels has a size and no elements, so that its memory format does not matter.
    skips = () if skip.shape[1] == 0 and skip.dtype == below.dtype else (skip,)
    if not runs_on_cpp("upsample_concat", below, *skips):
        return reference.upsample_concat(skip, below)
    joined: Tensor = _UpsampleConcat.apply(skip, below)
    return joined


class _UpsampleConcat(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(ctx: Any, skip: Tensor, below: Tensor) -> Tensor:
        ctx.channels, ctx.size = skip.shape[1], below.shape[2:]
        # Inductor may have decomposed what made `below` into another layout than the one that was checked.
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


_forward = extension_operator("upsample_concat_forward", _fake_forward)
_backward = extension_operator("upsample_concat_backward", _fake_backward)
