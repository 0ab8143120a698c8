"""What stands around the convolutions: norms, activation and pooling; upsampling; what a mirror does.

And of the convolutions themselves the first, of few channels, and one gradient, where the library's is slow.
"""

from binaural.kernels.layers.add_mirrored import add_mirrored
from binaural.kernels.layers.average_pool import average_pool
from binaural.kernels.layers.batch_norm_relu import batch_norm_relu
from binaural.kernels.layers.conv3x3 import conv3x3
from binaural.kernels.layers.dispatch import autocast_dtype
from binaural.kernels.layers.layer_norm import layer_norm
from binaural.kernels.layers.mirror_weight import mirror_weight
from binaural.kernels.layers.reference import share_norms, without_channels
from binaural.kernels.layers.stem import STEM_CHANNELS, stem
from binaural.kernels.layers.upsample_concat import upsample_concat

__all__ = [
    "STEM_CHANNELS",
    "add_mirrored",
    "autocast_dtype",
    "average_pool",
    "batch_norm_relu",
    "conv3x3",
    "layer_norm",
    "mirror_weight",
    "share_norms",
    "stem",
    "upsample_concat",
    "without_channels",
]
