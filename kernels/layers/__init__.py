"""What stands between the convolutions of a U-Net: norm, activation and pooling; upsampling and joining."""

from kernels.layers.batch_norm_relu import batch_norm_relu
from kernels.layers.reference import share_norms
from kernels.layers.upsample_concat import upsample_concat

__all__ = ["batch_norm_relu", "share_norms", "upsample_concat"]
