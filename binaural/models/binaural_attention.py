"""The binaural network: one encoder per ear, cross-attention between the ears, fusion and a U-Net decoder."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from binaural.features import MAGNITUDE, check_features, ear_channels, ears
from binaural.models.attention import BinauralCrossAttention, Scope, Similarity
from binaural.models.blocks import DepthDecoder, Encoder, Fusion, NoFusion
from binaural.models.checks import check_input, check_levels, check_sizes, check_skips
from binaural.models.cost_volumes import LONGEST_LAG, Concatenation, GroupCorrelation
from binaural.models.ear_pairs import tie_weights
from binaural.models.levels import ALL_SKIPS, LEVELS, VIEW_TARGET_LEVEL, level_channels
from binaural.models.mirror import MirrorDepthDecoder, MirrorFusion, MirrorViewTransform
from binaural.models.pretrained import Pretrained
from binaural.models.view_transform import ViewTransform, ViewTransforms, row_channels

Matching = Literal["attention", "group_correlation", "concatenation"]

# Unless ear_width is 1, channel counts are rounded down to a multiple of the largest of these that fits:
# four, two or one vectors of AVX-512, and whole tiles of tensor cores. Other counts are as slow as the next
# multiple.
_CHANNEL_MULTIPLES = (64, 32, 16)


@dataclass(frozen=True)
class BinauralAttentionOptions:
    """Arguments of `BinauralAttentionDepthNet` that are options of `train.py`, with their defaults there.

    Compared with the defaults of the class this network has about half the parameters and a step takes two
    thirds of the time, at the same accuracy.

    Attributes:
        skip_levels: None for level 3, to which the view transform adds, and those of `attention_levels`
            that can have a skip connection. For the others see the class.
    """

    attention_levels: tuple[int, ...] = (3, 5)
    matching: Matching = "attention"
    ear_width: float = 1.0
    symmetric: bool = True
    view_levels: tuple[int, ...] = (VIEW_TARGET_LEVEL,)
    skip_levels: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.skip_levels is None:
            skips = {VIEW_TARGET_LEVEL, *self.attention_levels} & {*ALL_SKIPS}
            object.__setattr__(self, "skip_levels", tuple(sorted(skips)))


class BinauralEncoder(Encoder):
    """The encoder of one ear, [B, in_channels, H, W] → five levels of features."""

    def __init__(
        self,
        channels: Sequence[int],
        in_channels: int = 1,
        read_levels: Collection[int] = (*ALL_SKIPS, LEVELS),
    ) -> None:
        super().__init__(in_channels, channels, read_levels)


class BinauralAttentionDepthNet(Pretrained, nn.Module):
    """Depth from the echoes at two ears: two encoders, cross-attention between them, a U-Net decoder.

    `train.py` uses other defaults for some arguments, see `BinauralAttentionOptions`.

    Args:
        base_channels: channels of the finest level; the five levels have 1, 2, 4, 8, 8 times as many.
        attention_levels: levels, 1 (finest) to 5, with cross-attention between the ears.
        heads: attention heads, see `BinauralCrossAttention`.
        scope: "time" attends along the time axis of each frequency row, "plane" over all cells.
        similarity: "shared" or "separate", see `BinauralCrossAttention`.
        max_depth: the largest depth that can be predicted, metres.
        ear_width: channels of each ear's encoder relative to those of the U-Net's encoder. The cost of
            convolutions grows with its square: at about 0.63 both ears together cost as much as one full
            encoder. Unless it is 1, channel counts are rounded down to multiples of 16, 32 or 64.
        max_lag: pairs of time steps further apart than this are masked; None for no limit in attention and
            4 steps in a cost volume.
        lag_bias: learn a bias for each lag within ± this many steps; None for no bias.
        matching: "attention", or a cost volume over lags instead (`binaural.models.cost_volumes`, with scope
            "time"): "group_correlation", with as many groups as heads, or "concatenation".
        features: input features, names in `binaural.features.SOUND`. Each ear's encoder gets the channels
            of that ear, and those of its difference to the other ear (`binaural.features.ears`).
        symmetric: tie the weights of both ears, so that swapping the ears mirrors the prediction, up to
            rounding (`binaural.models.mirror`). This costs the same arithmetic, has about half the
            parameters, and transfers what is learned on one side to the other. Without it each ear has its
            own weights, for ears that are not mirror images of each other.
        view_levels: levels whose features also pass through a view transform, from frequency and time to
            elevation and azimuth (`binaural.models.view_transform`).
        skip_levels: levels, 1 to 4, with a skip connection to the decoder. Cells of a fine spectrogram
            (frequency, time) are not aligned with depth pixels (elevation, azimuth) and take most of the
            time: with a view transform, a skip at level 3 alone is as accurate.
        backend: of `binaural.kernels.cross_attention`.

    Raises:
        ValueError: an attention or view level outside 1 to 5; a skip level outside 1 to 4; attention at a
            level without effect on the output (no skip and no view transform); view levels without a skip
            at level 3; sizes that are not positive; unknown features or matching; a cost volume with scope
            "plane"; odd base_channels of a symmetric network; errors of `BinauralCrossAttention`.
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
        matching: Matching = "attention",
        features: Sequence[str] = MAGNITUDE,
        symmetric: bool = False,
        view_levels: Sequence[int] = (),
        skip_levels: Sequence[int] = ALL_SKIPS,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        check_sizes(base_channels, max_depth)
        if symmetric and base_channels % 2:
            raise ValueError(f"base_channels must be even if symmetric, got {base_channels}")
        self.features = check_features(features)
        if ear_width <= 0:
            raise ValueError(f"ear_width must be positive, got {ear_width}")
        if matching not in get_args(Matching):
            raise ValueError(f"matching must be one of {get_args(Matching)}, got {matching!r}")
        if matching != "attention" and scope != "time":
            raise ValueError(f"matching {matching!r} needs scope 'time', got scope {scope!r}")
        check_levels("attention_levels", attention_levels)
        check_levels("view_levels", view_levels)
        check_skips(skip_levels, view_levels, attention_levels)
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
            "matching": matching,
            "features": self.features,
            "symmetric": symmetric,
            "view_levels": tuple(view_levels),
            "skip_levels": tuple(skip_levels),
        }
        channels = level_channels(base_channels)
        ear_widths = [_scale_channels(c, ear_width) for c in channels]
        fused_levels = {*skip_levels, LEVELS}
        encoder = ear_widths, ear_channels(self.features), fused_levels | {*view_levels}
        self.encoder_left = BinauralEncoder(*encoder)
        self.encoder_right = BinauralEncoder(*encoder)
        self.symmetric = symmetric
        if symmetric:
            tie_weights(self, "encoder_right", "encoder_left")

        def match_ears(width: int) -> nn.Module:
            if matching == "attention":
                return BinauralCrossAttention(
                    width,
                    heads,
                    scope=scope,
                    similarity=similarity,
                    max_lag=max_lag,
                    lag_bias=lag_bias,
                    symmetric=symmetric,
                    backend=backend,
                )
            longest = LONGEST_LAG if max_lag is None else max_lag
            if matching == "concatenation":
                return Concatenation(width, longest, symmetric=symmetric)
            return GroupCorrelation(width, heads, longest, symmetric=symmetric)

        self.attention = nn.ModuleDict(
            {str(level): match_ears(ear_widths[level - 1]) for level in sorted(attention_levels)}
        )
        fusion, decoder = (MirrorFusion, MirrorDepthDecoder) if symmetric else (Fusion, DepthDecoder)
        self.fusion = nn.ModuleList(
            fusion(ear, full) if level in fused_levels else NoFusion()
            for level, ear, full in zip(range(1, LEVELS + 1), ear_widths, channels, strict=True)
        )
        self.decoder = decoder(channels, max_depth, skip_levels)

        target = channels[VIEW_TARGET_LEVEL - 1]

        def view_transform(level: int) -> ViewTransform:
            ear = ear_widths[level - 1]
            if symmetric:
                return MirrorViewTransform(level, ear, target)
            return ViewTransform(level, Fusion(ear, row_channels(level)), target)

        # Created last, so that the initial weights of the other modules do not depend on view_levels.
        self.view_transforms = ViewTransforms({level: view_transform(level) for level in view_levels})

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2, H, W] (left, right; H frequency, W time) → depth [B, 1, H, W], metres in [0, max_depth].

        With features other than the magnitude, the input has their number of channels instead of 2.
        """
        check_input(x, self.features)
        features, matched = [], []
        for index, level in enumerate(self._encode(*ears(x, self.features))):
            if str(index + 1) in self.attention:
                level = self.attention[str(index + 1)](*level)
            matched.append(level)
            features.append(self.fusion[index](*level))
        index = VIEW_TARGET_LEVEL - 1
        features[index] = self.view_transforms(features[index], matched)
        return self.decoder(features)

    def _encode(self, left: Tensor, right: Tensor) -> Iterable[tuple[Tensor, ...]]:
        """Inputs of both ears → for each level the features of left and right, or of both in one batch."""
        if not self.symmetric:
            return zip(self.encoder_left(left), self.encoder_right(right), strict=True)
        # One batch: half the calls, and batch norm statistics over the inputs of both ears.
        return zip(self.encoder_left(torch.cat([left, right])))


def _scale_channels(channels: int, width: float) -> int:
    if width == 1:
        return channels
    wanted = int(channels * width)
    multiple = next((m for m in _CHANNEL_MULTIPLES if m <= wanted), _CHANNEL_MULTIPLES[-1])
    return max(multiple, wanted // multiple * multiple)
