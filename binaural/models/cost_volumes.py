"""Cost volumes of stereo vision between the feature maps of the two ears, in attention's place.

Where stereo matches columns of two images over disparities, these match time steps of two ears over lags:
both signs, as either ear may lead, up to a largest one. A lag is the right ear's time step minus the left's.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binaural.models.blocks import Conv3x3
from binaural.models.ear_pairs import as_one_batch, each_ear, tie_weights

LONGEST_LAG = 4
"""Steps, where nothing else is asked for; at the coarser levels more than a head's largest delay."""

_CONCATENATED = 8  # channels of the concatenation volume: the map's divided by it


class CostVolume(nn.Module):
    """A cost volume over lags, added to the features of both ears at their own time steps.

    One volume serves both ears. A 1 × 1 convolution over its channels and lags is added to an ear's features
    with a gain that starts at 0, as in `BinauralCrossAttention`, so that training begins without its effect.

    Args:
        channels: C of either ear's map.
        volume_channels: channels of the volume at each lag.
        max_lag: the volume holds lags from - to + this many steps.
        symmetric: both ears have the same weights, and the volume of each ear is computed with it in the
            left's place: swapped ears then swap the outputs.

    Raises:
        ValueError: `max_lag` below 0.
    """

    def __init__(self, channels: int, volume_channels: int, max_lag: int, symmetric: bool) -> None:
        super().__init__()
        if max_lag < 0:
            raise ValueError(f"max_lag must be at least 0, got {max_lag}")
        self.max_lag = max_lag
        self.norm_left = nn.LayerNorm(channels)
        self.norm_right = nn.LayerNorm(channels)
        self.read_left = nn.Conv2d(volume_channels * len(self.lags), channels, 1)
        self.read_right = nn.Conv2d(volume_channels * len(self.lags), channels, 1)
        self.gain_left = nn.Parameter(torch.zeros(channels))
        self.gain_right = nn.Parameter(torch.zeros(channels))
        self.symmetric = symmetric
        if symmetric:
            tie_weights(self, "norm_right", "norm_left")
            tie_weights(self, "read_right", "read_left")
            del self.gain_right

    @property
    def lags(self) -> range:
        return range(-self.max_lag, self.max_lag + 1)

    def forward(self, *ears: Tensor) -> tuple[Tensor, ...]:
        """left, right [B, C, H, W] → the same shapes, with the output added.

        Of a symmetric one also [2 B, C, H, W] with the left ear's maps first → the same.
        """
        left, right = each_ear(ears)
        normalised = _normalise(left, self.norm_left), _normalise(right, self.norm_right)
        volume = self.volume(*normalised)
        read_left = self.read_left(volume.flatten(1, 2))
        read_right = self.read_right(self.seen_from_right(volume, *normalised).flatten(1, 2))
        gain_right = self.gain_left if self.symmetric else self.gain_right
        matched = (
            left + self.gain_left[:, None, None] * read_left,
            right + gain_right[:, None, None] * read_right,
        )
        return matched if len(ears) == 2 else (as_one_batch(matched),)

    def seen_from_right(self, volume: Tensor, left: Tensor, right: Tensor) -> Tensor:
        """The output of `volume(left, right)`, at the right ear's steps.

        Of a symmetric one, with the right ear in the left's place.
        """
        # The pair (left step i, lag) belongs to the right step i + lag.
        sheared = [_shift(volume[:, :, index], -lag) for index, lag in enumerate(self.lags)]
        # Seen from the other ear, lags change their sign.
        return torch.stack(sheared[::-1] if self.symmetric else sheared, 2)

    def volume(self, left: Tensor, right: Tensor) -> Tensor:
        """Maps [B, C, H, W] → [B, volume channels, lags, H, W] at the left ear's steps.

        0 where a step has no partner at a lag.
        """
        raise NotImplementedError


class GroupCorrelation(CostVolume):
    """Similarity of projected features, channel group by channel group, at each lag.

    After Guo et al., "Group-wise Correlation Stereo Network" (GwcNet), CVPR 2019: the mean over a group's
    channels of left · right.

    Args:
        channels: C of either ear's map.
        groups: number of groups.
        max_lag, symmetric: see `CostVolume`.

    Raises:
        ValueError: `channels` not divisible by `groups`, `max_lag` below 0.
    """

    def __init__(
        self, channels: int, groups: int = 4, max_lag: int = LONGEST_LAG, *, symmetric: bool = False
    ) -> None:
        if channels % groups:
            raise ValueError(f"channels must be divisible by heads, the groups, got {channels} and {groups}")
        super().__init__(channels, groups, max_lag, symmetric)
        self.groups = groups
        self.project_left = nn.Conv2d(channels, channels, 1)
        self.project_right = nn.Conv2d(channels, channels, 1)
        if symmetric:
            tie_weights(self, "project_right", "project_left")

    def volume(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = self.project_left(left), self.project_right(right)
        correlations = [
            (left * _shift(right, lag)).unflatten(1, (self.groups, -1)).mean(2) for lag in self.lags
        ]
        return torch.stack(correlations, 2)


class Concatenation(CostVolume):
    """Features of both ears, concatenated at each lag, compared by 3 × 3 convolutions over lag and time.

    After Chang and Chen, "Pyramid Stereo Matching Network" (PSMNet), CVPR 2018. The first layer is computed
    as W [left; right] = W_left left + W_right right, so that the concatenated volume is never made.

    Args:
        channels: C of either ear's map; the volume has an eighth of them.
        max_lag, symmetric: see `CostVolume`.

    Raises:
        ValueError: `max_lag` below 0.
    """

    def __init__(self, channels: int, max_lag: int = LONGEST_LAG, *, symmetric: bool = False) -> None:
        width = max(channels // _CONCATENATED, 4)
        super().__init__(channels, width, max_lag, symmetric)
        self.project_left = nn.Conv2d(channels, width, 1)
        self.project_right = nn.Conv2d(channels, width, 1, bias=False)
        self.compare = nn.Sequential(
            nn.ReLU(inplace=True),
            Conv3x3(width, width),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
        )

    def volume(self, left: Tensor, right: Tensor) -> Tensor:
        left, right = self.project_left(left), self.project_right(right)
        exists = left.new_ones(1, 1, 1, left.shape[-1])
        pairs = [(left + _shift(right, lag)) * _shift(exists, lag) for lag in self.lags]
        partner = torch.stack([_shift(exists, lag) for lag in self.lags], 2)
        rows = torch.stack(pairs, 3).permute(0, 2, 1, 3, 4)  # [B, H, width, lags, W]
        compared = self.compare(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])
        return compared.permute(0, 2, 3, 1, 4) * partner

    def seen_from_right(self, volume: Tensor, left: Tensor, right: Tensor) -> Tensor:
        # The comparison of a pair is not symmetric in its ears.
        return self.volume(right, left) if self.symmetric else super().seen_from_right(volume, left, right)


def _shift(x: Tensor, steps: int) -> Tensor:
    """x [..., W] at time + `steps`, 0 where that is outside."""
    steps = max(min(steps, x.shape[-1]), -x.shape[-1])
    return F.pad(x, (-steps, steps)) if steps else x


def _normalise(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    """Apply a layer norm to the channels of each pixel of [B, C, H, W]."""
    return norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
