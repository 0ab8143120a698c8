"""Depth from binaural echoes: networks that match the ears by cross-attention, and their training.

The public names are imported on first use, so that `import binaural.kernels` does not import the networks.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from binaural.attention import BinauralCrossAttention
    from binaural.losses import AdaptiveBinauralAttentionLoss, BinauralAttentionLoss
    from binaural.networks import BinauralAttentionDepthNet, BinauralEncoder, UNet, load_network

_MODULES = {
    "AdaptiveBinauralAttentionLoss": "binaural.losses",
    "BinauralAttentionDepthNet": "binaural.networks",
    "BinauralAttentionLoss": "binaural.losses",
    "BinauralCrossAttention": "binaural.attention",
    "BinauralEncoder": "binaural.networks",
    "UNet": "binaural.networks",
    "load_network": "binaural.networks",
}

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
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
