"""A sweep over range: what the ears hear at each echo delay, laid out over the directions it comes from.

The columns of a spectrogram are range and its rows frequency, those of a depth map are azimuth and elevation:
no cell of the one lies over the cell of the other that it tells of. Plane sweeps (Collins, "A space-sweep
approach to true multi-image matching", CVPR 1996; Yao et al., "MVSNet", ECCV 2018) compare, for one distance
after the other, what all directions would show if they were that far away. Here each time step is such a
distance: level differences between the ears and the spectral notches of the outer ears tell from where its
echoes come.
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from binaural.blocks import norm_relu

DIRECTIONS = 16
"""Of elevation, and of azimuth."""

_TARGET = 3  # the level, counted from 1, to whose map the directions are added
_FINEST = 64  # bands and ranges of a sweep at level 1
_CHANNELS = 512  # numbers that a picture of the directions is made of, over all bands


def band_channels(level: int) -> int:
    """Channels that each frequency band of a level's sweep has."""
    return _CHANNELS // _steps(level)


def _steps(level: int) -> int:
    return _FINEST >> (level - 1)


class RangeSweep(nn.Module):
    """Feature maps of one level, over frequency and time → a map over elevation and azimuth.

    One linear map of all frequencies, the same at every time step, gives a picture of the directions at that
    range. The pictures of all ranges, each normalised, are the channels of a map over the directions, from
    which a 1 × 1 convolution takes what comes out. Level 1 has 64 frequency bands and 64 ranges, each further
    level half of them: the size of its map where the input is 64 × 64, to which others are averaged.

    Args:
        level: 1 (finest) to 5.
        squeeze: module that takes the level's feature maps to one of `band_channels(level)` channels.
        out_channels: channels that come out.
    """

    def __init__(self, level: int, squeeze: nn.Module, out_channels: int) -> None:
        super().__init__()
        self.steps = _steps(level)
        self.squeeze = squeeze
        self.look = nn.Linear(_CHANNELS, DIRECTIONS * DIRECTIONS, bias=False)
        self.norm = nn.BatchNorm2d(self.steps)
        self.project = nn.Conv2d(self.steps, out_channels, 1)

    def forward(self, *maps: Tensor) -> Tensor:
        """maps [B, C, H, W] (H frequency, W time) → [B, out_channels, elevation, azimuth]."""
        return self.read(self.pictures(self.squeeze(*map(self.average, maps))))

    def average(self, map: Tensor) -> Tensor:
        """[B, C, H, W] → [B, C, band, range]."""
        size = (self.steps, self.steps)
        return map if map.shape[2:] == size else F.adaptive_avg_pool2d(map, size)

    def pictures(self, bands: Tensor) -> Tensor:
        """What `squeeze` gave → [B, range, elevation, azimuth]."""
        # A row for each time step: the channels of all its bands.
        seen = self.look(bands.permute(0, 3, 2, 1).flatten(2))
        return seen.unflatten(2, (DIRECTIONS, DIRECTIONS))

    def read(self, pictures: Tensor) -> Tensor:
        """What the pictures of all ranges tell of each direction."""
        # A direction's ranges side by side: channels-last.
        pictures = pictures.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
        return self.project(norm_relu(self.norm, pictures)[0])


class RangeSweeps(nn.ModuleDict):
    """The sweeps of several levels, added up and laid over the map of level 3.

    Args:
        sweeps: `RangeSweep` by level.
    """

    def __init__(self, sweeps: Mapping[int, RangeSweep]) -> None:
        super().__init__({str(level): sweeps[level] for level in sorted(sweeps)})

    def add_to(self, features: list[Tensor], maps: Sequence[Sequence[Tensor]]) -> None:
        """Add to `features`, by level, what the sweeps tell of the `maps` of each level."""
        if not self:
            return
        told = sum(sweep(*maps[int(level) - 1]) for level, sweep in self.items())
        map = features[_TARGET - 1]
        if told.shape[2:] != map.shape[2:]:
            told = F.interpolate(told, map.shape[2:], mode="bilinear", align_corners=False)
        features[_TARGET - 1] = map + told
