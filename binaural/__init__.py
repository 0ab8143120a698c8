"""Depth from binaural echoes: networks that match the ears by cross-attention, and what trains them."""

from binaural.attention import BinauralCrossAttention
from binaural.losses import AdaptiveBinauralAttentionLoss, BinauralAttentionLoss
from binaural.networks import BinauralAttentionDepthNet, BinauralEncoder, UNet, load_network

__all__ = [
    "AdaptiveBinauralAttentionLoss",
    "BinauralAttentionDepthNet",
    "BinauralAttentionLoss",
    "BinauralCrossAttention",
    "BinauralEncoder",
    "UNet",
    "load_network",
]
