"""Definitions of the fused layers in plain PyTorch; the kernels are tested against them."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def batch_norm_relu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float,
    eps: float,
    pool: bool,
    keep: bool,
) -> tuple[Tensor, Tensor | None]:
    """`binaural.kernels.layers.batch_norm_relu`."""
    y = share_norms(
        lambda x: F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps),
        x,
        weight.numel(),
    )
    y = F.relu(y, inplace=True)
    return y if keep else without_channels(y), F.max_pool2d(y, 2) if pool else None


def without_channels(x: Tensor) -> Tensor:
    """A placeholder of the size of x without channels: [B, C, H, W] → [B, 0, H, W]. It has no gradient."""
    return x.detach()[:, :0]


def share_norms(norm: Callable[[Tensor], Tensor], x: Tensor, norms: int) -> Tensor:
    """Apply a batch norm of fewer channels than x has: channels c, c + norms, ... share its c-th.

    Args:
        norm: a batch norm of maps with `norms` channels.
        x: [B, C, H, W].
        norms: a divisor of C.

    Returns:
        [B, C, H, W].
    """
    batch, channels, height, width = x.shape
    if channels == norms:
        return norm(x)
    # Channels that share a norm become pixels. In channels-last memory that is a view of the same map.
    pixels = x.permute(0, 2, 3, 1).reshape(batch, height, width * (channels // norms), norms)
    pixels = norm(pixels.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
    return pixels.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def upsample_concat(skip: Tensor, below: Tensor) -> Tensor:
    """`binaural.kernels.layers.upsample_concat`."""
    height, width = below.shape[-2:]
    if torch.compiler.is_compiling() and skip.shape[-2:] == (2 * height, 2 * width):
        upsampled = double(double(below, 2), 3)
    else:
        upsampled = F.interpolate(below, size=skip.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([skip, upsampled], dim=1) if skip.shape[1] > 0 else upsampled


def double(x: Tensor, dim: int) -> Tensor:
    """Upsample x linearly to twice its size along `dim`, as `F.interpolate` does with align_corners=False.

    torch.compile turns these slices into one pass, and their gradient into another; it turns `F.interpolate`
    into a gather, whose gradient adds to memory pixel by pixel.
    """
    size = x.shape[dim]
    before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, size - 1)], dim)
    after = torch.cat([x.narrow(dim, 1, size - 1), x.narrow(dim, size - 1, 1)], dim)
    even, odd = 0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after
    return torch.stack([even, odd], dim + 1).flatten(dim, dim + 1)


def add_mirrored(both: Tensor) -> Tensor:
    """`binaural.kernels.layers.add_mirrored`."""
    ears = both.split([both.shape[0] // 2] * 2)
    (left, left_swapped), (right, right_swapped) = (ear.chunk(2, dim=1) for ear in ears)
    return torch.cat([left + right_swapped, (right + left_swapped).flip(-1)], dim=1)
