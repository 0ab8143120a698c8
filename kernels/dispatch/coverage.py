"""What each backend covers, asked of the functions that decide it."""

from collections.abc import Callable
from typing import Any

import torch

from binaural.kernels.cross_attention import operator as cross_attention
from binaural.kernels.cross_attention.checks import DTYPES
from binaural.kernels.depth_loss import operator as depth_loss

# Beyond as many channels per head nothing is asked.
_MOST_CHANNELS = 4096


def coverage(operation: str, backend: str) -> str:
    """Dtypes and sizes that `backend` covers of `operation`, in one line."""
    if backend == "reference":
        return "everything"
    why_not: Callable[[torch.dtype, int], str | None] = {
        "cross_attention": _ask_cross_attention,
        "edge_aware_loss": _ask_edge_aware_loss,
    }[operation](backend)
    dtypes = [dtype for dtype in DTYPES if why_not(dtype, 1) is None]
    names = ", ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
    channels = _MOST_CHANNELS
    while channels > 1 and why_not(dtypes[0], channels) is not None:
        channels //= 2
    return names if channels == _MOST_CHANNELS else f"{names}; up to {channels} channels of q per head"


def _ask_cross_attention(backend: str) -> Any:
    def why_not(dtype: torch.dtype, channels: int) -> str | None:
        tensor = torch.empty(1, 1, 1, channels, dtype=dtype, device="meta")
        return cross_attention.WHY_NOT_COVERED[backend](tensor)

    return why_not


def _ask_edge_aware_loss(backend: str) -> Any:
    return lambda dtype, _: depth_loss.WHY_NOT_COVERED[backend](torch.empty(0, dtype=dtype, device="meta"))
