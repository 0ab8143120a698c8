"""Weights of a convolution that commutes with the mirror, from those of half of its output channels."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import extension_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.maps import from_rows, runs_on_cpp


def mirror_weight(weight: Tensor, parts: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Make all weights of a convolution that commutes with the mirror from those of half of its outputs.

    The channels of each input map, and of the output, form two groups of equal size: the response to the
    input, and the flipped response to the mirrored input. The weights of the second group of output channels
    are those of the first, flipped along the width, with the groups of each input map exchanged (Cohen and
    Welling, "Group Equivariant Convolutional Networks", ICML 2016, for the group of the reflection).

    The C++ kernels write each weight once, in `dtype`, and its gradient once; they take channels-last weights
    of float32, up to two parts, and write float32 or bfloat16. PyTorch's operators run for all others.

    Args:
        weight: [C_out / 2, C_in, kH, kW].
        parts: channels of each of the concatenated input maps.
        dtype: of the result.

    Returns:
        [C_out, C_in, kH, kW].

    Raises:
        ValueError: parts that are odd, or do not sum to C_in; a backend requested by `use_backend` that
            cannot run this call.
    """
    if sum(parts) != weight.shape[1] or any(part < 1 or part % 2 for part in parts):
        raise ValueError(f"parts must be even and sum to weight's C_in = {weight.shape[1]}, got {[*parts]}")
    why_not = None
    if len(parts) > 2:
        why_not = "its kernels take at most two parts, and these are more"
    if dtype not in (torch.float32, torch.bfloat16):
        why_not = "its kernels write float32 and bfloat16, and another dtype is wanted"
    if not runs_on_cpp("mirror_weight", weight, why_not=why_not):
        return reference.mirror_weight(weight, parts, dtype)
    both: Tensor = _MirrorWeight.apply(weight, parts[0], dtype)
    return both


class _MirrorWeight(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, first_part: int, dtype: torch.dtype) -> Tensor:
        ctx.first_part = first_part
        return from_rows(_forward(weight, first_part, dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        return from_rows(_backward(gradient, ctx.first_part)), None, None


def _fake_forward(weight: Tensor, first_part: int, dtype: torch.dtype) -> Tensor:
    outputs, channels, height, width = weight.shape
    return weight.new_empty((2 * outputs, height, width, channels), dtype=dtype)


def _fake_backward(gradient: Tensor, first_part: int) -> Tensor:
    outputs, channels, height, width = gradient.shape
    return gradient.new_empty((outputs // 2, height, width, channels), dtype=torch.float32)


_forward = extension_operator("mirror_weight_forward", _fake_forward)
_backward = extension_operator("mirror_weight_backward", _fake_backward)
