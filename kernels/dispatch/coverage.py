"""List what each backend covers, by calling the functions that `choose` calls."""

from collections.abc import Callable
from typing import Any

import torch

from binaural.kernels.cross_attention import operator as cross_attention
from binaural.kernels.cross_attention.checks import DTYPES
from binaural.kernels.depth_loss import operator as depth_loss
from binaural.kernels.layers import maps

# The largest number of channels per head that is tried.
_MOST_CHANNELS = 4096


def coverage(operation: str, backend: str) -> str:
    """Dtypes and sizes of `operation` that `backend` covers, in one line."""
    if backend == "reference":
        return "everything"
    why_not = _WHY_NOT_COVERED.get(operation, _why_layer_not_covered)(operation, backend)
    dtypes = [dtype for dtype in DTYPES if why_not(dtype, 1) is None]
    names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    if operation in maps.DTYPES:
        return f"{names}; channels-last{_LAYER_LIMITS.get(operation, '')}"
    channels = _MOST_CHANNELS
    while channels > 1 and why_not(dtypes[0], channels) is not None:
        channels //= 2
    return names if channels == _MOST_CHANNELS else f"{names}; up to {channels} channels of q per head"


def _why_attention_not_covered(_: str, backend: str) -> Any:
    def why_not(dtype: torch.dtype, channels: int) -> str | None:
        tensor = torch.empty(1, 1, 1, channels, dtype=dtype, device="meta")
        return cross_attention.WHY_NOT_COVERED[backend](tensor)

    return why_not


def _why_loss_not_covered(_: str, backend: str) -> Any:
    return lambda dtype, _: depth_loss.WHY_NOT_COVERED[backend](torch.empty(0, dtype=dtype, device="meta"))


def _why_layer_not_covered(operation: str, _: str) -> Any:
    def why_not(dtype: torch.dtype, channels: int) -> str | None:
        return maps.why_not_covered(torch.empty(1, channels, 1, 1, dtype=dtype, device="meta"), operation)

    return why_not


_WHY_NOT_COVERED: dict[str, Callable[[str, str], Any]] = {
    "cross_attention": _why_attention_not_covered,
    "edge_aware_loss": _why_loss_not_covered,
}
# Where PyTorch's operators run on every backend, or what else the kernels need.
_LAYER_LIMITS = {
    "batch_norm_relu": "; in training",
    "conv3x3": "; the gradient of the weights, on processors with AVX2 and without AVX-512",
}
