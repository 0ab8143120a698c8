"""The edge-aware depth loss: value and gradient in one pass over the pixels."""

from kernels.depth_loss.operator import edge_aware_loss, weighted_loss
from kernels.depth_loss.reference import reference

__all__ = ["edge_aware_loss", "reference", "weighted_loss"]
