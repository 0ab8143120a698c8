"""Fused layers: batch norm with ReLU and pooling, upsampling with a skip, the sum of both ears' maps.

A 3 × 3 convolution, too, with a kernel for its gradient where PyTorch's is slow. Each layer has a definition
in plain PyTorch, most in `reference.py`, and C++ kernels for CPUs.
"""

from binaural.kernels.layers.add_mirrored import add_mirrored
from binaural.kernels.layers.batch_norm_relu import batch_norm_relu
from binaural.kernels.layers.conv3x3 import conv3x3
from binaural.kernels.layers.reference import share_norms, without_channels
from binaural.kernels.layers.upsample_concat import upsample_concat

__all__ = [
    "add_mirrored",
    "batch_norm_relu",
    "conv3x3",
    "share_norms",
    "upsample_concat",
    "without_channels",
]
