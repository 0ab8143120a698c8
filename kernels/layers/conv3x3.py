"""A 3 × 3 convolution, with a kernel for the gradient of its weights where PyTorch's is slow."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.autocast import autocast_dtype
from binaural.kernels.dispatch.registration import extension_operator
from binaural.kernels.layers.maps import from_rows, runs_on_cpp

# On processors without AVX-512, PyTorch's gradient of the weights of channels-last convolutions reaches a
# sixth to a half of the FLOP/s of its forward pass and of its gradient of the input.
PYTORCH_IS_SLOW = torch.backends.cpu.get_cpu_capability() == "AVX2"
_CHANNELS = 16  # kConvWeightChannels of csrc/layers/cpu_kernel.h
_LEAST_PIXELS = 64  # of a map; PyTorch is as fast on smaller ones


def conv3x3(x: Tensor, weight: Tensor) -> Tensor:
    """3 × 3 convolution, padded by 1, without a bias: `torch.nn.functional.conv2d`.

    On a CPU with AVX2 but without AVX-512, a C++ kernel computes the gradient of the weights, for
    channels-last maps of float32 of at least 64 pixels with a multiple of 16 channels. All else is PyTorch's.

    Args:
        x: [B, C_in, H, W].
        weight: [C_out, C_in, 3, 3].

    Returns:
        [B, C_out, H, W].

    Raises:
        RuntimeError: shapes that do not fit.
        ValueError: a backend requested by `use_backend` that cannot run this call.
    """
    # PyTorch's convolution runs on every backend where the kernel would not pay.
    pays = (
        PYTORCH_IS_SLOW
        and torch.is_grad_enabled()
        and weight.requires_grad
        and x.dtype == weight.dtype
        and autocast_dtype(x) is None
        and x.shape[1] % _CHANNELS == 0
        and x.shape[2] * x.shape[3] >= _LEAST_PIXELS
    )
    if not (pays and runs_on_cpp("conv3x3", x)):
        return F.conv2d(x, weight, padding=1)
    y: Tensor = _Conv3x3.apply(x, weight)
    return y


class _Conv3x3(torch.autograd.Function):
    """PyTorch's convolution and gradient of its input, and the C++ kernel's gradient of its weights."""

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


_gradient = extension_operator("conv_weight_gradient", _fake_gradient)


def _flops(dy: Any, x: Any, *_: Any, **__: Any) -> int:
    """FLOPs of the kernel, from the shapes of its arguments: as many as those of the convolution itself."""
    return conv_flop_count(x, [dy[1], x[1], 3, 3], dy)


if extension.WHY_NOT_LOADED is None:
    register_flop_formula(torch.ops.binaural.conv_weight_gradient)(_flops)
