"""Fused operations: cross-attention between two ears, and the depth loss that networks are trained with.

Every operation has one public function, a plain-PyTorch `reference` that defines it, and faster kernels: C++
on the CPU, Triton and CUDA C++ on a GPU. `python -m binaural.kernels` lists what this machine can use. In the
repository the operations are in the top-level folder kernels/, to which this package has links.
"""

from binaural.kernels.cross_attention import cross_attention, packed_cross_attention
from binaural.kernels.depth_loss import edge_aware_loss
from binaural.kernels.dispatch.backends import BACKENDS, available_backends, use_backend

__all__ = [
    "BACKENDS",
    "available_backends",
    "cross_attention",
    "edge_aware_loss",
    "packed_cross_attention",
    "use_backend",
]
