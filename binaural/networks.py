"""Import path of version 0.1; use `from binaural import ...`."""

import warnings

from binaural.models import BinauralAttentionDepthNet, BinauralEncoder, UNet, load_network

__all__ = ["BinauralAttentionDepthNet", "BinauralEncoder", "UNet", "load_network"]

warnings.warn(
    "binaural.networks is deprecated: import its names from binaural", DeprecationWarning, stacklevel=2
)
