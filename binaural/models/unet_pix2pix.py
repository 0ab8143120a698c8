"""The U-Net of pix2pix, the baseline of the BatVision data set's authors."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binaural.features import MAGNITUDE, channel_names, check_features
from binaural.models.checks import check_input, check_sizes
from binaural.models.pretrained import Pretrained

_DEEPEST = 8  # halvings of a picture of 256
_INITIAL_DEVIATION = 0.02


def halvings(image_size: int) -> int:
    """How often a picture of that size can be halved, at most 8 times: to one cell at 64, 128 and 256."""
    count = 0
    while count < _DEEPEST and image_size % 2 == 0:
        image_size, count = image_size // 2, count + 1
    return count


class UNetPix2Pix(Pretrained, nn.Module):
    """U-Net of strided 4 × 4 convolutions, down to a single cell, and transposed ones back.

    With 8 halvings this is pix2pix's `unet_256` (54.4 million parameters at 64 channels), the baseline of
    BatVision; a smaller picture cannot be halved as often, and the levels with most channels then fall away:
    with 6 halvings it takes 64 × 64. Depth is a sigmoid times `max_depth`, as in BatVision's code with
    normalised depth.

    Sources: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", CVPR 2017;
    Brunetto et al., "The Audio-Visual BatVision Dataset for Research on Sight and Sound", IROS 2023.

    Args:
        base_channels: channels of the finest level; the levels have 1, 2, 4, 8, 8, ... times as many.
        max_depth: the largest depth that can be predicted, metres.
        downsamplings: how often the picture is halved; `halvings` gives the most for its size.
        features: kinds of input channels, names in `binaural.features.FEATURES`.

    Raises:
        ValueError: sizes that are not positive, fewer than 2 or more than 8 downsamplings, unknown features.
    """

    def __init__(
        self,
        base_channels: int = 64,
        max_depth: float = 30.0,
        downsamplings: int = _DEEPEST,
        features: Sequence[str] = MAGNITUDE,
    ) -> None:
        super().__init__()
        check_sizes(base_channels, max_depth)
        if not 2 <= downsamplings <= _DEEPEST:
            raise ValueError(f"downsamplings must be from 2 to {_DEEPEST}, got {downsamplings}")
        self.features = check_features(features)
        self.max_depth = max_depth
        self.arguments: dict[str, Any] = {
            "base_channels": base_channels,
            "max_depth": max_depth,
            "downsamplings": downsamplings,
            "features": self.features,
        }
        channels = [base_channels * min(2**level, 8) for level in range(downsamplings)]
        self.downs, self.ups = nn.ModuleList(), nn.ModuleList()
        for level, width in enumerate(channels):
            below = channels[level - 1] if level else len(channel_names(self.features))
            outermost, innermost = level == 0, level == downsamplings - 1
            # No norm at either end: of the input, and of what may be a single cell.
            plain = outermost or innermost
            down = [nn.Conv2d(below, width, 4, stride=2, padding=1, bias=False)]
            self.downs.append(nn.Sequential(*down, *([] if plain else [nn.BatchNorm2d(width)])))
            wide = width if innermost else 2 * width  # with the skip connection
            if outermost:
                up: list[nn.Module] = [nn.ConvTranspose2d(wide, 1, 4, stride=2, padding=1)]
            else:
                up = [
                    nn.ConvTranspose2d(wide, below, 4, stride=2, padding=1, bias=False),
                    nn.BatchNorm2d(below),
                ]
            self.ups.append(nn.Sequential(*up))
        self.apply(_initialise)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C of the features, H, W] → depth [B, 1, H, W], metres in [0, max_depth].

        H and W must be multiples of 2 ** downsamplings.
        """
        multiple = 2 ** len(self.downs)
        check_input(x, self.features, smallest=multiple)
        if x.shape[2] % multiple or x.shape[3] % multiple:
            raise ValueError(
                f"H and W must be multiples of {multiple} for {len(self.downs)} downsamplings, "
                f"got {list(x.shape)}"
            )
        skips = []
        for level, down in enumerate(self.downs):
            x = down(x if level == 0 else F.leaky_relu(x, 0.2))
            skips.append(x)
        x = skips.pop()
        for up in reversed(self.ups[1:]):
            x = up(F.relu(x))
            x = torch.cat([F.leaky_relu(skips.pop(), 0.2), x], dim=1)
        return torch.sigmoid(self.ups[0](F.relu(x))) * self.max_depth


def _initialise(module: nn.Module) -> None:
    """Initialise as pix2pix: weights N(0, 0.02²), scales of norms N(1, 0.02²), biases 0."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, _INITIAL_DEVIATION)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, 1.0, _INITIAL_DEVIATION)
