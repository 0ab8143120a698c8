"""Layer norm over the channels of each pixel."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch.registration import extension_operator
from binaural.kernels.layers import reference
from binaural.kernels.layers.maps import FLOAT32_WEIGHTS, as_map, empty_rows, from_rows, runs_on_cpp


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each pixel's channels to mean 0 and variance 1, times `weight`, plus `bias`.

    After Ba et al., "Layer Normalization", 2016. The C++ kernels read the map once in the forward and once
    in the backward pass; they take channels-last maps of float32 or bfloat16, with weight and bias of
    float32. PyTorch's operator runs for all others.

    Args:
        x: [B, C, H, W].
        weight, bias: [C].
        eps: added to the variance.

    Returns:
        [B, C, H, W].

    Raises:
        ValueError: weight or bias are not [C]; a backend requested by `use_backend` that cannot run this
            call.
    """
    for name, tensor in {"weight": weight, "bias": bias}.items():
        if tensor.shape != x.shape[1:2]:
            raise ValueError(f"{name} must be [C] = {list(x.shape[1:2])}, got {list(tensor.shape)}")
    why_not = None if weight.dtype == bias.dtype == torch.float32 else FLOAT32_WEIGHTS
    if not runs_on_cpp("layer_norm", x, why_not=why_not):
        return reference.layer_norm(x, weight, bias, eps)
    y: Tensor = _LayerNorm.apply(x, weight, bias, eps)
    return y


class _LayerNorm(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
        weight = weight.contiguous()
        y, mean, inverse = _forward(x, weight, bias.contiguous(), eps)
        ctx.save_for_backward(x, weight, mean, inverse)
        return from_rows(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        dx, dweight, dbias = _backward(as_map(dy), *ctx.saved_tensors)
        return from_rows(dx), dweight, dbias, None


def _fake_forward(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, height, width = x.shape
    of_pixels = weight.new_empty(batch * height * width)
    return empty_rows(x), of_pixels, torch.empty_like(of_pixels)


def _fake_backward(
    dy: Tensor, x: Tensor, weight: Tensor, mean: Tensor, inverse: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return empty_rows(x), torch.empty_like(weight), torch.empty_like(weight)


_forward = extension_operator("layer_norm_forward", _fake_forward)
_backward = extension_operator("layer_norm_backward", _fake_backward)
