"""Fused operations for matching echoes between two ears, and the loss that trains on them.

Every operation has one public function, a plain-PyTorch `reference` that defines it, and kernels that
compute the same faster: C++ on the CPU, Triton and CUDA C++ on a GPU. `python -m binaural.kernels` tells which of
them this machine can use.
"""

from binaural.kernels.dispatch.backends import available_backends, use_backend
from binaural.kernels.cross_attention import cross_attention, packed_cross_attention
from binaural.kernels.depth_loss import edge_aware_loss

__all__ = [
    "available_backends",
    "cross_attention",
    "edge_aware_loss",
    "packed_cross_attention",
    "use_backend",
]
