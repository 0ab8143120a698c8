"""The edge-aware depth loss: value and gradient in one pass over the pixels."""

from binaural.kernels.depth_loss.operator import edge_aware_loss, weighted_loss
from binaural.kernels.depth_loss.reference import reference

__all__ = ["edge_aware_loss", "reference", "weighted_loss"]
