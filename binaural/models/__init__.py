"""The networks and the modules that they are built from; saving and loading."""

from binaural.models.adaptive_bins import AdaptiveBinsNet
from binaural.models.attention import BinauralCrossAttention
from binaural.models.base_residual import BaseResidualNet
from binaural.models.binaural_attention import (
    BinauralAttentionDepthNet,
    BinauralAttentionOptions,
    BinauralEncoder,
)
from binaural.models.loading import load_network
from binaural.models.pretrained import Pretrained
from binaural.models.unet import UNet, UNetOptions
from binaural.models.unet_pix2pix import UNetPix2Pix

__all__ = [
    "AdaptiveBinsNet",
    "BaseResidualNet",
    "BinauralAttentionDepthNet",
    "BinauralAttentionOptions",
    "BinauralCrossAttention",
    "BinauralEncoder",
    "Pretrained",
    "UNet",
    "UNetOptions",
    "UNetPix2Pix",
    "load_network",
]
