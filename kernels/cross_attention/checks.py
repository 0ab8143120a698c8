"""What `cross_attention` refuses, before anything runs."""

import math

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check(
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None,
    k_right: Tensor | None,
    scale: float | None,
    max_lag: int | None,
    lag_bias: Tensor | None,
) -> None:
    """Raise TypeError or ValueError naming the argument, its value and what was expected."""
    if (k_left is None) != (k_right is None):
        missing = "k_left" if k_left is None else "k_right"
        raise ValueError(f"k_left and k_right must be given both or not at all, but {missing} is None")
    tensors = {"q_left": q_left, "q_right": q_right, "v_left": v_left, "v_right": v_right}
    if k_left is not None and k_right is not None:
        tensors |= {"k_left": k_left, "k_right": k_right}
    for name, tensor in tensors.items():
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
        if tensor.dim() != 4:
            raise ValueError(f"{name} must be [R, time, heads, channels], got shape {list(tensor.shape)}")
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, got {tensor.dtype}")
        if tensor.dtype != q_left.dtype:
            raise TypeError(f"{name} must have q_left's dtype {q_left.dtype}, got {tensor.dtype}")
        if tensor.device != q_left.device:
            raise ValueError(f"{name} must be on q_left's device {q_left.device}, got {tensor.device}")

    r, n, heads, d = q_left.shape
    m, dv = q_right.shape[1], v_left.shape[3]
    expected = {
        "q_right": [r, m, heads, d],
        "v_left": [r, n, heads, dv],
        "v_right": [r, m, heads, dv],
        "k_left": [r, n, heads, d],
        "k_right": [r, m, heads, d],
    }
    for name, tensor in tensors.items():
        if name != "q_left" and list(tensor.shape) != expected[name]:
            raise ValueError(
                f"{name} must have shape {expected[name]} to fit q_left {list(q_left.shape)}, "
                f"q_right [., {m}, ., .] and v_left [., ., ., {dv}], got {list(tensor.shape)}"
            )
    for name, size in (("heads", heads), ("d", d), ("dv", dv)):
        if size == 0:
            raise ValueError(f"{name} must be at least 1, got 0 in q_left or v_left")

    check_scale(scale, q_left.dtype)
    check_max_lag(max_lag)
    check_lag_bias(lag_bias, q_left)


def check_scale(scale: float | None, dtype: torch.dtype) -> None:
    """Raise TypeError or ValueError unless it is None or finite in what `dtype` is multiplied in."""
    if scale is None:
        return
    if not isinstance(scale, int | float):
        raise TypeError(f"scale must be a number or None, got {type(scale).__name__}")
    # As wide as the products that it multiplies.
    wide = torch.promote_types(dtype, torch.float32)
    if not (math.isfinite(scale) and abs(scale) <= torch.finfo(wide).max):
        name = str(wide).removeprefix("torch.")
        raise ValueError(f"scale must be finite in {name}, got {scale}")


def check_max_lag(max_lag: int | None) -> None:
    """Raise ValueError unless it is None or a whole number of at least 0."""
    if max_lag is not None and (not isinstance(max_lag, int) or max_lag < 0):
        raise ValueError(f"max_lag must be a whole number of at least 0, or None, got {max_lag!r}")


def check_lag_bias(lag_bias: Tensor | None, q_left: Tensor) -> None:
    """Raise TypeError or ValueError unless it is None or fits q_left."""
    if lag_bias is None:
        return
    heads = q_left.shape[2]
    if not isinstance(lag_bias, Tensor):
        raise TypeError(f"lag_bias must be a tensor, got {type(lag_bias).__name__}")
    if lag_bias.dim() != 2 or lag_bias.shape[0] != heads or lag_bias.shape[1] % 2 == 0:
        raise ValueError(
            f"lag_bias must be [heads, 2 L + 1] = [{heads}, an odd number], got {list(lag_bias.shape)}"
        )
    if lag_bias.dtype not in DTYPES:
        raise TypeError(f"lag_bias must be float32, bfloat16, float16 or float64, got {lag_bias.dtype}")
    if lag_bias.device != q_left.device:
        raise ValueError(f"lag_bias must be on q_left's device {q_left.device}, got {lag_bias.device}")
