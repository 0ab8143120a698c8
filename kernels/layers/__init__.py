"""What stands around the convolutions: norms, activation and pooling; upsampling; what a mirror does."""

from kernels.layers.add_mirrored import add_mirrored
from kernels.layers.batch_norm_relu import batch_norm_relu
from kernels.layers.layer_norm import layer_norm
from kernels.layers.mirror_weight import mirror_weight
from kernels.layers.reference import share_norms
from kernels.layers.upsample_concat import upsample_concat

__all__ = [
    "add_mirrored",
    "batch_norm_relu",
    "layer_norm",
    "mirror_weight",
    "share_norms",
    "upsample_concat",
]
