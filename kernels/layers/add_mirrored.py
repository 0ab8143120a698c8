"""The sum of what two ears contribute, with half of its channels seen in the mirror."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import complete_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.dispatch import from_rows, is_covered


def add_mirrored(both: Tensor) -> Tensor:
    """What both ears contribute to a map, and to the map with the ears swapped, in the mirror.

    The first half of an ear's channels is what it contributes as it is, the second half what it contributes
    in the other's place:

        first half = left's first + right's second
        second half = mirrored along the width(right's first + left's second)

    The kernels read and write each element once: on the CPU, for channels-last maps of float32 or bfloat16;
    all else runs as PyTorch's own operators.

    Args:
        both: [2 B, C, H, W], C even; the left ear's maps before the right's.

    Returns:
        [B, C, H, W].

    Raises:
        ValueError: an odd batch or an odd C.
    """
    if both.dim() != 4 or both.shape[0] % 2 or both.shape[1] % 2:
        raise ValueError(f"both must be [2 B, C, H, W] with an even C, got {[*both.shape]}")
    if not is_covered(both):
        return reference.add_mirrored(both)
    y: Tensor = _AddMirrored.apply(both)
    return y


class _AddMirrored(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(ctx: Any, both: Tensor) -> Tensor:
        return from_rows(_forward(both))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return from_rows(_backward(gradient.contiguous(memory_format=torch.channels_last)))


def _fake_forward(both: Tensor) -> Tensor:
    batch, channels, height, width = both.shape
    return both.new_empty((batch // 2, height, width, channels))


def _fake_backward(gradient: Tensor) -> Tensor:
    batch, channels, height, width = gradient.shape
    return gradient.new_empty((2 * batch, height, width, channels))


if hasattr(torch.ops.binaural, "add_mirrored_forward"):
    _forward = complete_operator("add_mirrored_forward", _fake_forward)
    _backward = complete_operator("add_mirrored_backward", _fake_backward)
