"""The convolutional blocks of all networks."""

import math
from collections.abc import Collection, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from binaural.kernels.layers import conv3x3, upsample_concat, without_channels
from binaural.models.ear_pairs import each_ear
from binaural.models.fused_layers import is_plain, norm_relu
from binaural.models.levels import ALL_SKIPS, LEVELS


class Conv3x3(nn.Conv2d):
    """3 × 3 convolution, padded by 1, without a bias: [B, C_in, H, W] → [B, C_out, H, W]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return conv3x3(x, self.weight)


class DoubleConv(nn.Sequential):
    """(3 × 3 convolution, batch norm, ReLU) twice: [B, C_in, H, W] → [B, C_out, H, W]."""

    # Groups of channels that share each norm, see `norm_relu`.
    norm_copies = 1

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        mid_channels = mid_channels or out_channels
        super().__init__(
            # Without a bias, which the batch norm would remove again. The ReLUs are not in place: where they
            # are called, hooks may hold the norm's output.
            Conv3x3(in_channels, mid_channels),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(),
            Conv3x3(mid_channels, out_channels),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.with_pooled(x, pool=False)[0]

    def with_pooled(self, x: Tensor, pool: bool, keep: bool = True) -> tuple[Tensor, Tensor | None]:
        """What `forward` returns, with zero channels unless `keep`; and, with `pool`, its max-pooled map."""
        first, first_norm, first_relu, second, second_norm, second_relu = self
        x, _ = norm_relu(first_norm, first(x), relu=first_relu, copies=self.norm_copies)
        return norm_relu(
            second_norm, second(x), relu=second_relu, copies=self.norm_copies, pool=pool, keep=keep
        )


class Encoder(nn.Module):
    """Five levels of `DoubleConv` with max-pooling between them.

    Args:
        in_channels: channels of the input spectrogram.
        channels: channels of the five levels.
        read_levels: levels, 1 (finest) to 5, whose features are used, 5 among them. The output of the others
            has zero channels.
    """

    def __init__(
        self, in_channels: int, channels: Sequence[int], read_levels: Collection[int] = (*ALL_SKIPS, LEVELS)
    ) -> None:
        super().__init__()
        self.read_levels = read_levels
        sizes = [in_channels, *channels]
        self.levels = nn.ModuleList(DoubleConv(a, b) for a, b in pairwise(sizes))

    def forward(self, x: Tensor) -> list[Tensor]:
        """[B, in_channels, H, W] → features of level l = 1..5, [B, C_l, H / 2^(l-1), W / 2^(l-1)]."""
        features: list[Tensor] = []
        pooled: Tensor | None = x
        for number, level in enumerate(self.levels, 1):
            assert pooled is not None
            if is_plain(level, DoubleConv):
                assert isinstance(level, DoubleConv)
                feature, pooled = level.with_pooled(pooled, number < LEVELS, number in self.read_levels)
            else:
                feature = level(pooled)
                pooled = F.max_pool2d(feature, 2) if number < LEVELS else None
            features.append(feature)
        return features


class Fusion(nn.Module):
    """Both ears' features, concatenated, through a 1 × 1 convolution, batch norm and ReLU.

    Computed as W [left; right] = W_left left + W_right right, so that neither the concatenated map nor its
    gradient is stored.

    Args:
        ear_channels: channels of either ear's map.
        out_channels: channels of the fused map.
    """

    def __init__(self, ear_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2 * ear_channels, out_channels, 1, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, *ears: Tensor) -> Tensor:
        """left, right [B, C_ear, H, W] → [B, C_out, H, W]."""
        left, right = each_ear(ears)
        if not is_plain(self.conv, nn.Conv2d):
            return norm_relu(self.norm, self.conv(torch.cat([left, right], dim=1)))[0]
        weight_left, weight_right = self.conv.weight.split(left.shape[1], dim=1)
        fused = F.conv2d(left, weight_left).add_(F.conv2d(right, weight_right))
        return norm_relu(self.norm, fused)[0]


class NoFusion(nn.Module):
    """Placeholder of zero channels for a level without a skip connection."""

    def forward(self, *ears: Tensor) -> Tensor:
        """left, right [B, C_ear, H, W], or both in one batch [2 B, C_ear, H, W] → [B, 0, H, W]."""
        return without_channels(each_ear(ears)[0])


class Decoder(nn.Module):
    """U-Net decoder: bilinear upsampling, concatenation with the skip connection, `DoubleConv`.

    After Ronneberger et al., "U-Net", 2015, with upsampling in place of transposed convolution.

    Args:
        channels: channels of the five input levels; the output has those of the finest.
        skip_levels: the levels, 1 (finest) to 4, that have a skip connection. Of the maps of the others only
            the size is used.
    """

    def __init__(self, channels: Sequence[int], skip_levels: Sequence[int] = ALL_SKIPS) -> None:
        super().__init__()
        self.skip_levels = tuple(skip_levels)
        ups, below = [], channels[-1]
        for level in reversed(ALL_SKIPS):
            out = channels[max(level - 2, 0)]
            skip = channels[level - 1] if level in skip_levels else 0
            ups.append(self.up(skip, below, out, max(out, (skip + below) // 2)))
            below = out
        self.ups = nn.ModuleList(ups)

    def up(self, skip: int, below: int, out: int, mid: int) -> DoubleConv:
        """Make the block of a level, which is applied to its concatenated maps."""
        return DoubleConv(skip + below, out, mid)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of five levels, finest first → [B, C_1, H, W]."""
        x = features[-1]
        for up, level in zip(self.ups, reversed(ALL_SKIPS), strict=True):
            skip = features[level - 1]
            x = up(upsample_concat(skip if level in self.skip_levels else without_channels(skip), x))
        return x


class DepthDecoder(Decoder):
    """`Decoder`, then depth in metres.

    Args:
        channels: channels of the five input levels.
        max_depth: the largest depth that can be predicted, metres.
        skip_levels: as in `Decoder`.
    """

    def __init__(
        self, channels: Sequence[int], max_depth: float, skip_levels: Sequence[int] = ALL_SKIPS
    ) -> None:
        super().__init__(channels, skip_levels)
        self.max_depth = max_depth
        self.head = depth_head(channels[0])

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Features of five levels, finest first → depth [B, 1, H, W] in [0, max_depth], metres."""
        # In float32 under autocast too: bfloat16 would round metres to parts of 256.
        return torch.sigmoid(self.head(super().forward(features)).float()) * self.max_depth


def depth_head(channels: int, kind: type[nn.Conv2d] = nn.Conv2d) -> nn.Conv2d:
    """1 × 1 convolution to the logit of the depth, as a share of the largest depth."""
    head = kind(channels, 1, 1)
    assert head.bias is not None
    # Most depths in a room are in the first fifth of the range: start there.
    nn.init.constant_(head.bias, math.log(0.2 / 0.8))
    return head
