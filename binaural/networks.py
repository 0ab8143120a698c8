"""The networks: binaural attention, and the plain U-Net that it is compared with."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from binaural.attention import BinauralCrossAttention, Scope, Similarity
from binaural.blocks import LEVELS, DepthDecoder, Encoder, Fusion, check_input, level_channels
from binaural.pretrained import Pretrained, read_config

_CHANNEL_MULTIPLE = 16  # a lean encoder's channels are rounded to it: two AVX vectors, a tensor-core tile


class BinauralEncoder(Encoder):
    """One ear's encoder, [B, 1, H, W] → five levels of features."""

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(1, channels)


class BinauralAttentionDepthNet(Pretrained, nn.Module):
    """Depth from the echoes at two ears: an encoder per ear, cross-attention between them, a U-Net decoder.

    Args:
        base_channels: channels of the finest level; the five levels have 1, 2, 4, 8, 8 times as many.
        attention_levels: levels, 1 (finest) to 5, at which the ears are matched.
        heads: attention heads, see `BinauralCrossAttention`.
        scope: "time" matches along the time axis of each frequency row, "plane" every cell with every cell.
        similarity: "shared" or "separate", see `BinauralCrossAttention`.
        max_depth: the largest depth that can be predicted, metres.
        ear_width: channels of each ear's encoder relative to the U-Net's. Convolution cost grows with its
            square: at about 0.63 the two ears together cost no more than one full encoder.
        max_lag: pairs of time steps further apart than this never match; None for no limit.
        lag_bias: learn a bias for each lag within ± this many steps; None for none.
        backend: of `kernels.cross_attention`.

    Raises:
        ValueError: an attention level outside 1 to 5, sizes that are not positive, or what
            `BinauralCrossAttention` refuses.
    """

    def __init__(
        self,
        base_channels: int = 64,
        attention_levels: Sequence[int] = (2, 3, 4, 5),
        heads: int = 4,
        scope: Scope = "time",
        similarity: Similarity = "shared",
        max_depth: float = 30.0,
        ear_width: float = 1.0,
        max_lag: int | None = None,
        lag_bias: int | None = 8,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        _check_sizes(base_channels, max_depth)
        if ear_width <= 0:
            raise ValueError(f"ear_width must be positive, got {ear_width}")
        wrong = [level for level in attention_levels if not 1 <= level <= LEVELS]
        if wrong or len(set(attention_levels)) != len(attention_levels):
            raise ValueError(
                f"attention_levels must be different levels from 1 to {LEVELS}, got {tuple(attention_levels)}"
            )
        self.arguments: dict[str, Any] = {
            "base_channels": base_channels,
            "attention_levels": tuple(attention_levels),
            "heads": heads,
            "scope": scope,
            "similarity": similarity,
            "max_depth": max_depth,
            "ear_width": ear_width,
            "max_lag": max_lag,
            "lag_bias": lag_bias,
        }
        channels = level_channels(base_channels)
        ear_channels = [_scale_channels(c, ear_width) for c in channels]
        self.encoder_left = BinauralEncoder(ear_channels)
        self.encoder_right = BinauralEncoder(ear_channels)
        self.attention = nn.ModuleDict(
            {
                str(level): BinauralCrossAttention(
                    ear_channels[level - 1],
                    heads,
                    scope=scope,
                    similarity=similarity,
                    max_lag=max_lag,
                    lag_bias=lag_bias,
                    backend=backend,
                )
                for level in sorted(attention_levels)
            }
        )
        self.fusion = nn.ModuleList(
            Fusion(ear, full) for ear, full in zip(ear_channels, channels, strict=True)
        )
        self.decoder = DepthDecoder(channels, max_depth)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2, H, W] (left, right; H frequency, W time) → depth [B, 1, H, W], metres in [0, max_depth]."""
        check_input(x, 2)
        features = []
        ears = zip(self.encoder_left(x[:, :1]), self.encoder_right(x[:, 1:]), strict=True)
        for index, (left, right) in enumerate(ears):
            if str(index + 1) in self.attention:
                left, right = self.attention[str(index + 1)](left, right)
            features.append(self.fusion[index](left, right))
        return self.decoder(features)


class UNet(Pretrained, nn.Module):
    """The U-Net to compare with: left and right concatenated, one encoder, blocks identical to ours.

    Args:
        base_channels: channels of the finest level; the five levels have 1, 2, 4, 8, 8 times as many.
        max_depth: the largest depth that can be predicted, metres.

    Raises:
        ValueError: sizes that are not positive.
    """

    def __init__(self, base_channels: int = 64, max_depth: float = 30.0) -> None:
        super().__init__()
        _check_sizes(base_channels, max_depth)
        self.arguments: dict[str, Any] = {"base_channels": base_channels, "max_depth": max_depth}
        channels = level_channels(base_channels)
        self.encoder = Encoder(2, channels)
        self.decoder = DepthDecoder(channels, max_depth)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2, H, W] (left, right; H frequency, W time) → depth [B, 1, H, W], metres in [0, max_depth]."""
        check_input(x, 2)
        return self.decoder(self.encoder(x))


NETWORKS: dict[str, type[BinauralAttentionDepthNet] | type[UNet]] = {
    "binaural": BinauralAttentionDepthNet,
    "unet": UNet,
}


def load_network(folder: str | Path) -> BinauralAttentionDepthNet | UNet:
    """The network saved in `folder`, whichever it is, on the CPU, in evaluation mode.

    Raises:
        FileNotFoundError: the folder holds no network.
        ValueError: the network is unknown, or its files do not fit each other.
    """
    name = read_config(folder)["network"]
    for network in NETWORKS.values():
        if network.__name__ == name:
            return network.from_pretrained(folder)
    known = ", ".join(network.__name__ for network in NETWORKS.values())
    raise ValueError(f"{folder} holds a {name!r}, expected one of {known}")


def _check_sizes(base_channels: int, max_depth: float) -> None:
    if base_channels < 1:
        raise ValueError(f"base_channels must be at least 1, got {base_channels}")
    if not max_depth > 0:
        raise ValueError(f"max_depth must be positive, in metres, got {max_depth}")


def _scale_channels(channels: int, width: float) -> int:
    if width == 1:
        return channels
    return max(_CHANNEL_MULTIPLE, round(channels * width / _CHANNEL_MULTIPLE) * _CHANNEL_MULTIPLE)
