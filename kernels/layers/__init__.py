"""What stands around the convolutions of a U-Net: norm, activation and pooling; upsampling; weights."""

from kernels.layers.add_mirrored import add_mirrored
from kernels.layers.batch_norm_relu import batch_norm_relu
from kernels.layers.mirror_weight import mirror_weight
from kernels.layers.reference import share_norms
from kernels.layers.upsample_concat import upsample_concat

__all__ = ["add_mirrored", "batch_norm_relu", "mirror_weight", "share_norms", "upsample_concat"]
