"""Blocks of a symmetric network, whose output is mirrored when the ears of its input are swapped.

In a mirrored room each ear receives the echoes that the other one receives in the room itself. These blocks
have that symmetry by construction, so that it need not be learned: they are group convolutions after Cohen
and Welling, "Group Equivariant Convolutional Networks", ICML 2016, for the group of the reflection.

Channels form two groups of equal size, the halves: the response to the input, and the flipped response to the
mirrored input. Swapping the ears exchanges the halves and flips both along the width, up to rounding.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from binaural.kernels.dispatch.autocast import autocast_dtype
from binaural.kernels.layers import add_mirrored, conv3x3
from binaural.models.blocks import DepthDecoder, DoubleConv, Fusion, depth_head
from binaural.models.ear_pairs import as_one_batch, exchange_ears, split_ears
from binaural.models.fused_layers import is_plain, norm_relu
from binaural.models.levels import ALL_SKIPS
from binaural.models.view_transform import ViewTransform, row_channels


class MirrorConv2d(nn.Module):
    """3 × 3 convolution of maps with two halves, without a bias: [B, C_in, H, W] → [B, C_out, H, W].

    The parameters are the weights of the first half of the output channels. The second half uses them
    flipped, with the halves of the input channels exchanged. It takes as many operations as a plain
    convolution and has half the parameters.

    Args:
        parts: channels of each of the concatenated input maps, each of which has two halves.
        out_channels: channels of the output.

    Raises:
        ValueError: an odd number of channels.
    """

    def __init__(self, parts: Sequence[int], out_channels: int) -> None:
        super().__init__()
        if any(channels % 2 for channels in (*parts, out_channels)):
            raise ValueError(
                f"parts and out_channels of maps with two halves must be even channels, "
                f"got {[*parts]} and {out_channels}"
            )
        self.parts = [*parts]
        self.weight = nn.Parameter(torch.empty(out_channels // 2, sum(parts), 3, 3))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)  # as nn.Conv2d

    def forward(self, x: Tensor) -> Tensor:
        weight: Tensor = self.weight
        dtype = autocast_dtype(x)
        if dtype is not None and weight.dtype != torch.float64:
            # Autocast would cast the result: cast before, there are half as many weights.
            weight = weight.to(dtype)
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
    """`DoubleConv` of maps with two halves, which share the batch norms.

    Args:
        parts: channels of each of the concatenated input maps.
        out_channels: channels of the output.
        mid_channels: channels between the two convolutions.
    """

    norm_copies = 2

    def __init__(self, parts: Sequence[int], out_channels: int, mid_channels: int) -> None:
        super().__init__(sum(parts) // 2, out_channels // 2, mid_channels // 2)
        self[0] = MirrorConv2d(parts, mid_channels)
        self[3] = MirrorConv2d([mid_channels], out_channels)


class MirrorFusion(Fusion):
    """`Fusion` to maps with two halves: of left and right, and, flipped, of right and left.

    Args:
        ear_channels: channels of either ear's map.
        out_channels: channels of the fused map.
    """

    def __init__(self, ear_channels: int, out_channels: int) -> None:
        super().__init__(ear_channels, out_channels // 2)

    def forward(self, *ears: Tensor) -> Tensor:
        """left, right [B, C_ear, H, W], or both in one batch [2 B, C_ear, H, W] → [B, C_out, H, W]."""
        both = as_one_batch(ears)
        if not is_plain(self.conv, nn.Conv2d):
            direct, exchanged = split_ears(self.conv(torch.cat([both, exchange_ears(both)], dim=1)))
            return norm_relu(self.norm, torch.cat([direct, exchanged.flip(-1)], dim=1), copies=2)[0]
        # Each ear's contribution in its own place, then its contribution in the other ear's place.
        halves = self.conv.weight.split(both.shape[1], dim=1)
        return norm_relu(self.norm, add_mirrored(F.conv2d(both, torch.cat(halves))), copies=2)[0]


class MirrorViewTransform(ViewTransform):
    """`ViewTransform` of both ears to a map with two halves; swapped ears mirror its volume.

    Args:
        level: 1 (finest) to 5.
        ear_channels: channels of either ear's map.
        out_channels: channels of the output.
    """

    def __init__(self, level: int, ear_channels: int, out_channels: int) -> None:
        super().__init__(level, ExchangedFusion(ear_channels, row_channels(level)), out_channels // 2)

    def volume(self, reduced: Tensor) -> Tensor:
        direct, exchanged = split_ears(super().volume(reduced))
        return direct + exchanged.flip(-1)

    def read(self, volume: Tensor) -> Tensor:
        # The volume is symmetric, so both halves are equal. Concatenated, since `repeat` does not keep
        # channels-last.
        return torch.cat([super().read(volume)] * 2, dim=1)


class ExchangedFusion(Fusion):
    """`Fusion` of left and right, and of right and left, in one batch."""

    def forward(self, *ears: Tensor) -> Tensor:
        """left, right [B, C_ear, H, W], or both in one batch [2 B, C_ear, H, W] → [2 B, C_out, H, W]."""
        both = as_one_batch(ears)
        if not is_plain(self.conv, nn.Conv2d):
            return norm_relu(self.norm, self.conv(torch.cat([both, exchange_ears(both)], dim=1)))[0]
        # Each ear's contribution in its own place, then its contribution in the other ear's place.
        halves = self.conv.weight.split(both.shape[1], dim=1)
        own, other = F.conv2d(both, torch.cat(halves)).chunk(2, dim=1)
        return norm_relu(self.norm, own + exchange_ears(other))[0]


class MirrorHead(nn.Conv2d):
    """1 × 1 convolution of the sum of both halves to one channel; the sum is never stored."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.repeat(1, 2, 1, 1), self.bias)


class MirrorDepthDecoder(DepthDecoder):
    """`DepthDecoder` of maps with two halves, to whose depth both contribute alike.

    Args:
        channels: channels of the five input levels.
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
