"""View transform, from the axes of a spectrogram to those of a depth map.

The rows of a spectrogram are frequencies and its columns ranges; those of a depth map are elevations and
azimuths: spectrogram cells are not aligned with depth pixels. Networks that predict the map of a street from
a camera's picture have the same problem, and solve it by a view transform: each column of features, which is
a ray, becomes a column of the map by one fully connected layer (Roddick and Cipolla, "Predicting Semantic Map
Representations from Images using Pyramid Occupancy Networks", CVPR 2020). Here each column is a range, and
becomes the directions at that range: echoes differ by direction in the level differences between the ears,
by frequency, and in the frequencies that the outer ears attenuate.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from binaural.kernels.layers import upsample_concat, without_channels
from binaural.models.fused_layers import norm_relu

DIRECTIONS = 16
"""Of elevation, and of azimuth."""

_FINEST = 64  # rows and ranges at level 1
_INPUTS = 512  # of the fully connected layer: channels of all rows


def row_channels(level: int) -> int:
    """Channels of each row, where a level's maps enter the fully connected layer."""
    return _INPUTS // _ranges(level)


def _ranges(level: int) -> int:
    return _FINEST >> (level - 1)


class ViewTransform(nn.Module):
    """Feature maps of one level, with time along their columns → a map over elevation and azimuth.

    One fully connected layer, the same at every range, takes all rows of a column to the directions. The
    ranges, each normalised, are then the channels of a map, from which a 1 × 1 convolution makes the
    output. Level 1 has 64 rows and 64 ranges, each further level half as many: the size of its map where the
    input is 64 × 64. Larger maps are averaged to that size, and smaller ones repeat their cells.

    Args:
        level: 1 (finest) to 5.
        reduction: module that takes the level's feature maps to one of `row_channels(level)` channels.
        out_channels: channels of the output.
    """

    def __init__(self, level: int, reduction: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.ranges = _ranges(level)
        self.reduction = reduction
        self.dense = nn.Linear(_INPUTS, DIRECTIONS * DIRECTIONS, bias=False)
        self.norm = nn.BatchNorm2d(self.ranges)
        self.project = nn.Conv2d(self.ranges, out_channels, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        """maps [B, C, H, W] (W time) → [B, out_channels, elevation, azimuth]."""
        return self.read(self.volume(self.reduction(*(self.resize(x) for x in maps))))

    def resize(self, x: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, rows, ranges]."""
        height, width = x.shape[2:]
        if height == width == self.ranges:
            return x
        if height % self.ranges == width % self.ranges == 0:
            # The same means, computed faster.
            return F.avg_pool2d(x, (height // self.ranges, width // self.ranges))
        return F.adaptive_avg_pool2d(x, (self.ranges, self.ranges))

    def volume(self, reduced: Tensor) -> Tensor:
        """[B, channels, rows, ranges] → [B, range, elevation, azimuth]."""
        columns = reduced.permute(0, 3, 2, 1).flatten(2)
        return self.dense(columns).unflatten(2, (DIRECTIONS, DIRECTIONS))

    def read(self, volume: Tensor) -> Tensor:
        """Project the ranges of each direction: [B, range, ...] → [B, out_channels, ...]."""
        # The ranges of a direction side by side: channels-last.
        volume = volume.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return self.project(norm_relu(self.norm, volume)[0])


class Reduction(nn.Module):
    """1 × 1 convolution of one map, batch norm and ReLU; for two maps it is `binaural.models.blocks.Fusion`.

    Args:
        in_channels: channels of the map.
        out_channels: channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return norm_relu(self.norm, self.conv(x))[0]


class ViewTransforms(nn.ModuleDict):
    """The view transforms of several levels, added to the map of `VIEW_TARGET_LEVEL`.

    Args:
        transforms: by level.
    """

    def __init__(self, transforms: Mapping[int, ViewTransform]) -> None:
        super().__init__({str(level): transforms[level] for level in sorted(transforms)})

    def forward(self, target: Tensor, maps: Sequence[Sequence[Tensor]]) -> Tensor:
        """The `target` plus the view transforms of the maps, finest level first."""
        if not self:
            return target
        seen = sum(transform(*maps[int(level) - 1]) for level, transform in self.items())
        if seen.shape[2:] != target.shape[2:]:
            seen = upsample_concat(without_channels(target), seen)
        return target + seen
