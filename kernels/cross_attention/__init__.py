"""Cross-attention between the ears: one cost volume, read in both directions."""

from binaural.kernels.cross_attention.operator import cross_attention
from binaural.kernels.cross_attention.packed import packed_cross_attention
from binaural.kernels.cross_attention.packed_views import unpack
from binaural.kernels.cross_attention.reference import reference

__all__ = ["cross_attention", "packed_cross_attention", "reference", "unpack"]
