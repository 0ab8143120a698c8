"""The U-Net that the binaural network is compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from binaural.features import MAGNITUDE, channel_names, check_features
from binaural.models.blocks import DepthDecoder, Encoder
from binaural.models.checks import check_input, check_levels, check_sizes, check_skips
from binaural.models.levels import ALL_SKIPS, LEVELS, VIEW_TARGET_LEVEL, level_channels
from binaural.models.pretrained import Pretrained
from binaural.models.view_transform import Reduction, ViewTransform, ViewTransforms, row_channels


@dataclass(frozen=True)
class UNetOptions:
    """Arguments of `UNet` as `train.py` sets them by default."""

    view_levels: tuple[int, ...] = ()
    skip_levels: tuple[int, ...] = ALL_SKIPS


class UNet(Pretrained, nn.Module):
    """The U-Net baseline: left and right concatenated, one encoder, the blocks of the binaural network.

    Args:
        base_channels: channels of the finest level; the five levels have 1, 2, 4, 8, 8 times as many.
        max_depth: the largest depth that can be predicted, metres.
        features: kinds of input channels, names in `binaural.features.FEATURES`.
        view_levels: levels whose maps also go through a view transform, as in `BinauralAttentionDepthNet`.
        skip_levels: levels, 1 to 4, with a skip connection to the decoder.

    Raises:
        ValueError: sizes that are not positive, unknown features, a view level outside 1 to 5, a skip level
            outside 1 to 4, or view levels without a skip at level 3.
    """

    def __init__(
        self,
        base_channels: int = 64,
        max_depth: float = 30.0,
        features: Sequence[str] = MAGNITUDE,
        view_levels: Sequence[int] = (),
        skip_levels: Sequence[int] = ALL_SKIPS,
    ) -> None:
        super().__init__()
        check_sizes(base_channels, max_depth)
        check_levels("view_levels", view_levels)
        check_skips(skip_levels, view_levels)
        self.features = check_features(features)
        self.arguments: dict[str, Any] = {
            "base_channels": base_channels,
            "max_depth": max_depth,
            "features": self.features,
            "view_levels": tuple(view_levels),
            "skip_levels": tuple(skip_levels),
        }
        channels = level_channels(base_channels)
        self.encoder = Encoder(
            len(channel_names(self.features)), channels, {*skip_levels, *view_levels, LEVELS}
        )
        self.decoder = DepthDecoder(channels, max_depth, skip_levels)
        target = channels[VIEW_TARGET_LEVEL - 1]

        def view_transform(level: int) -> ViewTransform:
            return ViewTransform(level, Reduction(channels[level - 1], row_channels(level)), target)

        self.view_transforms = ViewTransforms({level: view_transform(level) for level in view_levels})

    def forward(self, x: Tensor) -> Tensor:
        """[B, 2, H, W] (left, right; H frequency, W time) → depth [B, 1, H, W], metres in [0, max_depth].

        With other features than the magnitude the input has their channels.
        """
        check_input(x, self.features)
        features = self.encoder(x)
        index = VIEW_TARGET_LEVEL - 1
        features[index] = self.view_transforms(features[index], [(x,) for x in features])
        return self.decoder(features)
