"""Depth from binaural echoes: networks that match the ears by cross-attention, and their training.

The public names are imported on first use, so that `import binaural.kernels` does not import the networks.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from binaural.losses import AdaptiveBinauralAttentionLoss, BinauralAttentionLoss
    from binaural.models import (
        BinauralAttentionDepthNet,
        BinauralCrossAttention,
        BinauralEncoder,
        UNet,
        load_network,
    )

__all__ = [
    "AdaptiveBinauralAttentionLoss",
    "BinauralAttentionDepthNet",
    "BinauralAttentionLoss",
    "BinauralCrossAttention",
    "BinauralEncoder",
    "UNet",
    "load_network",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "binaural.losses" if name.endswith("Loss") else "binaural.models"
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
