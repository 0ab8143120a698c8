"""Sum of both ears' maps, where the second half of the channels is mirrored."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import extension_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.maps import from_rows, runs_on_cpp


def add_mirrored(both: Tensor) -> Tensor:
    """Add the maps of both ears, for a network that gives mirrored output when the ears are swapped.

    The first half of an ear's channels is its contribution in its own place, the second half that in the
    place of the other ear:

        first half of the sum = left[first half] + right[second half]
        second half of the sum = (right[first half] + left[second half]), flipped along the width

    The C++ kernels read and write each element once; they take channels-last maps of float32 or bfloat16.
    PyTorch's operators run for all other maps.

    Args:
        both: [2 B, C, H, W], C even; the left ear's maps, then the right's.

    Returns:
        [B, C, H, W].

    Raises:
        ValueError: an odd batch or an odd C; a backend requested by `use_backend` that cannot run this call.
    """
    if both.dim() != 4 or both.shape[0] % 2 or both.shape[1] % 2:
        raise ValueError(f"both must be [2 B, C, H, W] with an even C, got {[*both.shape]}")
    if not runs_on_cpp("add_mirrored", both):
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


_forward = extension_operator("add_mirrored_forward", _fake_forward)
_backward = extension_operator("add_mirrored_backward", _fake_backward)
