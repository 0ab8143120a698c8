"""The definitions, in plain PyTorch: every kernel is tested against them."""

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
) -> tuple[Tensor, Tensor | None]:
    """`kernels.layers.batch_norm_relu`."""
    y = F.batch_norm(x, running_mean, running_var, weight, bias, training, momentum, eps)
    y = F.relu(y, inplace=True)
    return y, F.max_pool2d(y, 2) if pool else None


def upsample_concat(skip: Tensor, below: Tensor) -> Tensor:
    """`kernels.layers.upsample_concat`."""
    upsampled = F.interpolate(below, size=skip.shape[-2:], mode="bilinear", align_corners=False)
    return torch.cat([skip, upsampled], dim=1)
