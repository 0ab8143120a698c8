"""A 3 × 3 convolution, with a gradient of its weights that is fast where the library's is not."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from binaural.kernels.dispatch.registration import complete_operator
from binaural.kernels.layers.dispatch import from_rows, is_covered

# On processors without AVX-512 the library's gradient of the weights of channels-last maps runs at a sixth
# to a half of the speed of its other two passes.
_LIBRARY_IS_SLOW = torch.backends.cpu.get_cpu_capability() == "AVX2"
_CHANNELS = 16  # kConvWeightChannels of csrc/layers/cpu_kernel.h
_LEAST_PIXELS = 64  # of a map; the library is as fast on smaller ones


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """3 × 3 convolution, padded by 1, without a bias: `torch.nn.functional.conv2d`.

    On a CPU with AVX2 but no AVX-512 the gradient of the weights is ours, for channels-last maps of float32
    whose channels are a multiple of 16.

    Args:
        x: [B, C_in, H, W].
        weight: [C_out, C_in, 3, 3].

    Returns:
        [B, C_out, H, W].

    Raises:
        RuntimeError: shapes that do not fit.
    """
    covered = (
        _LIBRARY_IS_SLOW
        and torch.is_grad_enabled()
        and weight.requires_grad
        and x.dtype == weight.dtype == torch.float32
        and not torch.is_autocast_enabled(x.device.type)
        and is_covered(x)
        and x.shape[1] % _CHANNELS == 0
        and x.shape[2] * x.shape[3] >= _LEAST_PIXELS
    )
    if not covered:
        return F.conv2d(x, weight, padding=1)
    y: Tensor = _Conv3x3.apply(x, weight)
    return y


class _Conv3x3(torch.autograd.Function):
    """The library's convolution and gradient of its input, and our gradient of its weights."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, padding=1)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous(memory_format=torch.channels_last)
        one, zero = [1, 1], [0, 0]
        dx: Tensor | None = torch.ops.aten.convolution_backward(
            dy, x, weight, None, one, one, one, False, zero, 1, [ctx.needs_input_grad[0], False, False]
        )[0]
        return dx, from_rows(_gradient(dy, x)) if ctx.needs_input_grad[1] else None


def _fake_gradient(dy: Tensor, x: Tensor) -> Tensor:
    return x.new_empty((dy.shape[1], 3, 3, x.shape[1]), dtype=torch.float32)


if hasattr(torch.ops.binaural, "conv_weight_gradient"):
    _gradient = complete_operator("conv_weight_gradient", _fake_gradient)

    @register_flop_formula(torch.ops.binaural.conv_weight_gradient)
    def _flops(dy: Any, x: Any, *_: Any, **__: Any) -> int:
        """Of shapes, as for the convolution itself."""
        return conv_flop_count(x, [dy[1], x[1], 3, 3], dy)
