"""The first layers of an encoder as one operation: a convolution of few channels, batch norm and ReLU."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from binaural.kernels.dispatch.registration import complete_operator
from binaural.kernels.layers.batch_norm_relu import batch_norm_relu, move_running
from binaural.kernels.layers.conv3x3 import conv3x3
from binaural.kernels.layers.dispatch import as_map, autocast_dtype, from_rows, is_covered

STEM_CHANNELS = 2  # kStemChannels of csrc/layers/cpu_kernel.h
"""Channels of a map for which `stem` is more than its two operations, at most."""


def stem(
    x: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """ReLU(batch norm(3 × 3 convolution(x))), padded by 1: `batch_norm_relu` of `conv3x3`.

    Of one or two channels, patches of 3 × 3 pixels have few numbers: their means and covariances give the
    mean and the variance of whatever a convolution makes of them. So the kernels write what the ReLU leaves,
    and read its gradient, once each, and what the convolution gives is never stored. They train on
    channels-last maps of float32 on the CPU that need no gradient, such as spectrograms, and write the
    autocast dtype; all else runs as these two operations.

    Args:
        x: [B, C_in, H, W].
        weight: [C_out, C_in, 3, 3].
        norm_weight, norm_bias, running_mean, running_var: [C_out].
        training: take the statistics of the batch.
        momentum: of the running statistics.
        eps: added to the variance.

    Returns:
        [B, C_out, H, W].

    Raises:
        ValueError: what `batch_norm_relu` refuses.
        RuntimeError: a weight that does not fit the map.
    """
    norm = (norm_weight, norm_bias, running_mean, running_var)
    dtype = autocast_dtype(weight)
    covered = (
        training
        and not x.requires_grad
        and is_covered(x)
        and weight.device == x.device
        and x.dtype == weight.dtype == norm_weight.dtype == torch.float32
        and dtype in (torch.float32, torch.bfloat16)
        and x.shape[1] <= STEM_CHANNELS
        and weight.shape[1:] == (x.shape[1], 3, 3)
        and x.numel() > x.shape[1]
        and all(tensor.shape == weight.shape[:1] for tensor in norm)
    )
    if not covered:
        options: dict[str, Any] = {"training": training, "momentum": momentum, "eps": eps}
        return batch_norm_relu(conv3x3(x, weight), *norm, **options)[0]
    y, mean, var = _Stem.apply(x, weight, norm_weight, norm_bias, eps, dtype)
    move_running(running_mean, running_var, mean, var, momentum, x.numel() // x.shape[1])
    return y


class _Stem(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor, Tensor]:
        padded = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
        weight = weight.contiguous(memory_format=torch.channels_last)
        y, mean, var, moments = _forward(padded, weight, norm_weight, norm_bias, eps, dtype)
        ctx.save_for_backward(padded, weight, norm_weight, norm_bias, moments)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, var)
        ctx.set_materialize_grads(False)
        return from_rows(y), mean, var

    @staticmethod
    def backward(ctx: Any, dy: Tensor | None, *_: Tensor | None) -> tuple[Tensor | None, ...]:
        if dy is None:
            return None, None, None, None, None, None
        dweight, dnorm_weight, dnorm_bias = _backward(as_map(dy), *ctx.saved_tensors, ctx.eps)
        return None, from_rows(dweight), dnorm_weight, dnorm_bias, None, None


def _fake_forward(
    padded: Tensor, weight: Tensor, norm_weight: Tensor, norm_bias: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    batch, height, width, channels = padded.shape
    y = padded.new_empty((batch, height - 2, width - 2, len(norm_weight)), dtype=dtype)
    moments = padded.new_empty((1 + 9 * channels, 9 * channels), dtype=torch.float64)
    return y, torch.empty_like(norm_weight), torch.empty_like(norm_weight), moments


def _fake_backward(
    dy: Tensor,
    padded: Tensor,
    weight: Tensor,
    norm_weight: Tensor,
    norm_bias: Tensor,
    moments: Tensor,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    dweight = weight.new_empty((len(norm_weight), 3, 3, padded.shape[3]))
    return dweight, torch.empty_like(norm_weight), torch.empty_like(norm_weight)


if hasattr(torch.ops.binaural, "stem_forward"):
    _forward = complete_operator("stem_forward", _fake_forward)
    _backward = complete_operator("stem_backward", _fake_backward)

    @register_flop_formula(torch.ops.binaural.stem_forward)
    def _flops_forward(padded: Any, weight: Any, *_: Any, out_shape: Any, **__: Any) -> int:
        """Of shapes, as for the convolution itself."""
        batch, height, width, channels = out_shape[0]
        return conv_flop_count(padded, weight, [batch, channels, height, width])

    @register_flop_formula(torch.ops.binaural.stem_backward)
    def _flops_backward(dy: Any, padded: Any, weight: Any, *_: Any, **__: Any) -> int:
        """Of shapes, as for the gradient of the convolution's weights."""
        return conv_flop_count(padded, weight, dy)
