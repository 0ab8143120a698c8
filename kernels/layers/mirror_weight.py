"""Weights that see half of a map's channels in the mirror."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import complete_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.dispatch import from_rows, is_covered


def mirror_weight(weight: Tensor, parts: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A convolution's weights for its first half of channels → those for all, which commute with the mirror.

    Each part of the channels that come in has two halves, and so has what comes out: what one sees, and what
    one sees in the mirror, mirrored back. The weights of the second half that comes out are those of the
    first, mirrored, with the halves that come in exchanged (Cohen and Welling, "Group Equivariant
    Convolutional Networks", ICML 2016, for the group of the reflection).

    The kernels write each weight once, in `dtype`, and its gradient once: on the CPU, for channels-last
    weights in float32 and up to two parts; all else runs as PyTorch's own operators.

    Args:
        weight: [C_out / 2, C_in, kH, kW].
        parts: channels of the maps, concatenated, that come in.
        dtype: of the result.

    Returns:
        [C_out, C_in, kH, kW].

    Raises:
        ValueError: parts that are odd, or do not sum to C_in.
    """
    if sum(parts) != weight.shape[1] or any(part < 1 or part % 2 for part in parts):
        raise ValueError(f"parts must be even and sum to weight's C_in = {weight.shape[1]}, got {[*parts]}")
    stored = (torch.float32, torch.bfloat16)
    if len(parts) > 2 or dtype not in stored or weight.dtype != torch.float32 or not is_covered(weight):
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


if hasattr(torch.ops.binaural, "mirror_weight_forward"):
    _forward = complete_operator("mirror_weight_forward", _fake_forward)
    _backward = complete_operator("mirror_weight_backward", _fake_backward)
