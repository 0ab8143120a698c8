"""What `edge_aware_loss` refuses, before anything runs."""

import math

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check(pred: Tensor, target: Tensor) -> None:
    """Raise TypeError or ValueError naming the argument, its value and what was expected."""
    for name, tensor in (("pred", pred), ("target", target)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, got {tensor.dtype}")
    shape = pred.shape
    if len(shape) not in (3, 4) or (len(shape) == 4 and shape[1] != 1):
        raise ValueError(f"pred must be [B, 1, H, W] or [B, H, W], got shape {list(shape)}")
    if 0 in shape[1:]:
        raise ValueError(f"pred must have at least one row and one column, got shape {list(shape)}")
    if target.shape != shape:
        raise ValueError(f"target must have pred's shape {list(shape)}, got {list(target.shape)}")
    if target.device != pred.device:
        raise ValueError(f"target must be on pred's device {pred.device}, got {target.device}")
    if target.requires_grad:
        raise ValueError("target must not require a gradient: the loss has one with respect to pred alone")


def check_weight(name: str, weight: float) -> None:
    """Raise ValueError unless `weight` is finite and at least 0, TypeError if it is no number."""
    if not isinstance(weight, int | float):
        raise TypeError(f"{name} must be a number or a 0-d tensor, got {type(weight).__name__}")
    if not (math.isfinite(weight) and weight >= 0):
        raise ValueError(f"{name} must be finite and at least 0, got {weight}")


def check_weight_tensor(name: str, weight: Tensor, device: torch.device) -> None:
    """Raise ValueError unless `weight` is a floating-point scalar on `device`; its value is not read."""
    if weight.dim() != 0 or weight.device != device or weight.dtype not in DTYPES:
        raise ValueError(
            f"{name} must be a number or a floating-point 0-d tensor on {device}, "
            f"got a {weight.dtype} tensor of shape {list(weight.shape)} on {weight.device}"
        )


def check_weights(weights: Tensor, device: torch.device) -> None:
    """Raise TypeError or ValueError unless `weights` is a floating-point tensor [3]; values are not read."""
    if not isinstance(weights, Tensor):
        raise TypeError(f"weights must be a tensor, got {type(weights).__name__}")
    if weights.dtype not in DTYPES:
        raise TypeError(f"weights must be float32, bfloat16, float16 or float64, got {weights.dtype}")
    if weights.shape != (3,):
        raise ValueError(f"weights must be [3] = (recon, edge, smooth), got shape {list(weights.shape)}")
    if weights.device != device:
        raise ValueError(f"weights must be on pred's device {device}, got {weights.device}")
