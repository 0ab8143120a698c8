"""Blocks that commute with the mirror: swapping the ears of what they compute on mirrors what comes out.

A room seen in a mirror is heard with the ears swapped. A network that obeys this by construction need not
learn it: a group convolution after Cohen and Welling, "Group Equivariant Convolutional Networks", ICML 2016,
for the group of the reflection. Its maps have two halves of channels: what one sees, and what one sees in the
mirror, mirrored back to lie over the first. Swapped ears exchange the halves and mirror both, up to rounding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from binaural.kernels.layers import add_mirrored, conv3x3
from binaural.models.blocks import DepthDecoder, DoubleConv, Fusion, depth_head, norm_relu
from binaural.models.ear_pairs import as_one_batch
from binaural.models.levels import ALL_SKIPS
from binaural.models.view_transform import ViewTransform, row_channels


class MirrorConv2d(nn.Module):
    """3 × 3 convolution of maps with two halves, without a bias: [B, C_in, H, W] → [B, C_out, H, W].

    Its weights are those of the first half that comes out; the second half takes them mirrored, with the
    halves that come in exchanged. It costs as much as a plain convolution and has half the parameters.

    Args:
        parts: channels of the maps, concatenated, that come in, each with two halves.
        out_channels: channels that come out.

    Raises:
        ValueError: an odd number of channels.
    """

    def __init__(self, parts: Sequence[int], out_channels: int) -> None:
        super().__init__()
        if any(channels % 2 for channels in (*parts, out_channels)):
            raise ValueError(f"maps with two halves have even channels, got {[*parts]} and {out_channels}")
        self.parts = [*parts]
        self.weight = nn.Parameter(torch.empty(out_channels // 2, sum(parts), 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        if torch.is_autocast_enabled(x.device.type) and weight.dtype != torch.float64:
            # Autocast would cast the result: cast before, there are half as many weights.
            weight = weight.to(torch.get_autocast_dtype(x.device.type))
        return conv3x3(x, mirror_weight(weight, self.parts))


def mirror_weight(weight: Tensor, parts: Sequence[int]) -> Tensor:
    """Make all weights of a convolution that commutes with the mirror from those of half of its outputs.

    The channels of each input map, and of the output, form two groups of equal size: the response to the
    input, and the flipped response to the mirrored input. The weights of the second group of output channels
    are those of the first, flipped along the width, with the groups of each input map exchanged.

    Args:
        weight: [C_out / 2, C_in, kH, kW].
        parts: channels of each of the concatenated input maps, even; they sum to C_in.

    Returns:
        [C_out, C_in, kH, kW].
    """
    groups = weight.split([part // 2 for part in parts for _ in range(2)], dim=1)
    exchanged = torch.cat([groups[index ^ 1] for index in range(len(groups))], dim=1)
    return torch.cat([weight, exchanged.flip(-1)])


class MirrorDoubleConv(DoubleConv):
    """`DoubleConv` of maps with two halves, which share their batch norms.

    Args:
        parts: channels of the maps, concatenated, that come in.
        out_channels: channels that come out.
        mid_channels: channels in between.
    """

    def __init__(self, parts: Sequence[int], out_channels: int, mid_channels: int) -> None:
        super().__init__(sum(parts) // 2, out_channels // 2, mid_channels // 2)
        self[0] = MirrorConv2d(parts, mid_channels)
        self[3] = MirrorConv2d([mid_channels], out_channels)


class MirrorFusion(Fusion):
    """`Fusion` to maps with two halves: left and right as they are, and right and left in the mirror.

    Args:
        ear_channels: channels of either ear's map.
        out_channels: channels of the fused map.
    """

    def __init__(self, ear_channels: int, out_channels: int) -> None:
        super().__init__(ear_channels, out_channels // 2)

    def forward(self, *ears: Tensor) -> Tensor:
        """left, right [B, C_ear, H, W], or both in one batch [2 B, C_ear, H, W] → [B, C_out, H, W]."""
        both = as_one_batch(ears)
        # What an ear contributes as it is, and in the other's place.
        halves = self.conv.weight.split(both.shape[1], dim=1)
        return norm_relu(self.norm, add_mirrored(F.conv2d(both, torch.cat(halves))))[0]


class MirrorViewTransform(ViewTransform):
    """`ViewTransform` of both ears to a map with two halves, by way of a volume that swapped ears mirror.

    Args:
        level: 1 (finest) to 5.
        ear_channels: channels of either ear's map.
        out_channels: channels that come out.
    """

    def __init__(self, level: int, ear_channels: int, out_channels: int) -> None:
        super().__init__(level, ExchangedFusion(ear_channels, row_channels(level)), out_channels // 2)

    def volume(self, reduced: Tensor) -> Tensor:
        seen, swapped = super().volume(reduced).chunk(2)
        return seen + swapped.flip(-1)

    def read(self, volume: Tensor) -> Tensor:
        # Mirrored back, what one sees in the mirror is the same. Not by repeat: eagerly, cat alone keeps
        # channels-last.
        return torch.cat([super().read(volume)] * 2, dim=1)


class ExchangedFusion(Fusion):
    """`Fusion` of left and right, and of right and left, in one batch."""

    def forward(self, *ears: Tensor) -> Tensor:
        """left, right [B, C_ear, H, W], or both in one batch [2 B, C_ear, H, W] → [2 B, C_out, H, W]."""
        both = as_one_batch(ears)
        # What an ear contributes in its own place and in the other's, which is half of the batch further on.
        halves = self.conv.weight.split(both.shape[1], dim=1)
        own, other = F.conv2d(both, torch.cat(halves)).chunk(2, dim=1)
        return norm_relu(self.norm, own + other.roll(len(both) // 2, 0))[0]


class MirrorHead(nn.Conv2d):
    """1 × 1 convolution to one channel of the sum of both halves, without making it."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.repeat(1, 2, 1, 1), self.bias)


class MirrorDepthDecoder(DepthDecoder):
    """`DepthDecoder` of maps with two halves, of which both tell the depth alike.

    Args:
        channels: channels of the five levels of features that come in.
        max_depth: the largest depth that can be predicted, metres.
        skip_levels: as in `Decoder`.
    """

    def __init__(
        self, channels: Sequence[int], max_depth: float, skip_levels: Sequence[int] = ALL_SKIPS
    ) -> None:
        super().__init__(channels, max_depth, skip_levels)
        self.head = depth_head(channels[0] // 2, MirrorHead)

    def up(self, skip: int, below: int, out: int, mid: int) -> DoubleConv:
        return MirrorDoubleConv([part for part in (skip, below) if part], out, mid)
