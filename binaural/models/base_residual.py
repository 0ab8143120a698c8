"""Depth as the sum of a coarse base and a fine residual."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binaural.features import MAGNITUDE, channel_names, check_features
from binaural.losses import DepthLoss, masked_mean, valid_pixels
from binaural.models.blocks import Decoder, DepthDecoder, Encoder
from binaural.models.checks import check_input, check_sizes
from binaural.models.levels import level_channels
from binaural.models.pretrained import Pretrained


class BaseAndResidual(NamedTuple):
    """Depth in two parts, [B, 1, H, W] each, metres; the residual may be negative."""

    base: Tensor
    residual: Tensor


class BaseResidualNet(Pretrained, nn.Module):
    """One encoder and two decoders, of the room's layout and of the objects in it: depth is their sum.

    Encoder and decoders are those of `UNet`.

    Args:
        base_channels: channels of the finest level; the five levels have 1, 2, 4, 8, 8 times as many.
        max_depth: the largest depth that can be predicted, metres.
        features: kinds of input channels, names in `binaural.features.FEATURES`.

    Raises:
        ValueError: sizes that are not positive, unknown features.
    """

    def __init__(
        self, base_channels: int = 64, max_depth: float = 30.0, features: Sequence[str] = MAGNITUDE
    ) -> None:
        super().__init__()
        check_sizes(base_channels, max_depth)
        self.features = check_features(features)
        self.max_depth = max_depth
        self.arguments: dict[str, Any] = {
            "base_channels": base_channels,
            "max_depth": max_depth,
            "features": self.features,
        }
        channels = level_channels(base_channels)
        self.encoder = Encoder(len(channel_names(self.features)), channels)
        self.base_decoder = DepthDecoder(channels, max_depth)
        self.residual_decoder = Decoder(channels)
        self.residual_head = nn.Conv2d(channels[0], 1, 1)
        # The residual is 0 at first.
        nn.init.zeros_(self.residual_head.weight)
        assert self.residual_head.bias is not None
        nn.init.zeros_(self.residual_head.bias)

    def forward(self, x: Tensor) -> Tensor | BaseAndResidual:
        """[B, C of the features, H, W] → depth [B, 1, H, W], metres in [0, max_depth].

        In training mode base and residual, which `BaseResidualLoss` learns from.
        """
        check_input(x, self.features)
        levels = self.encoder(x)
        base = self.base_decoder(levels)
        residual = torch.tanh(self.residual_head(self.residual_decoder(levels))) * self.max_depth
        if self.training:
            return BaseAndResidual(base, residual)
        return (base + residual).clamp(0.0, self.max_depth)


class BaseResidualLoss(DepthLoss):
    """λ_recon · |D - (base + residual)| + λ_base · |base - lowpass(D)| + λ_residual · |residual|.

    Each is a mean over the valid pixels, in metres.

    Args:
        lambda_recon, lambda_base, lambda_residual: the weights.
        blur: standard deviation of the low-pass filter, as a share of the picture's width.
    """

    terms = ("recon", "base", "residual")

    def __init__(
        self,
        lambda_recon: float = 1.0,
        lambda_base: float = 0.5,
        lambda_residual: float = 0.1,
        blur: float = 1 / 16,
    ) -> None:
        super().__init__()
        self.weights = (lambda_recon, lambda_base, lambda_residual)
        self.blur = blur

    def forward(self, output: BaseAndResidual, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch; `target` [B, 1, H, W] in metres, ≤ 0 or not finite: nothing was measured."""
        base, residual = output.base.float(), output.residual.float()
        valid = valid_pixels(target)
        target = torch.where(valid, target, 0.0)
        coarse = lowpass(target, self.blur * target.shape[-1])
        return self.weigh(
            masked_mean((base + residual - target).abs(), valid),
            masked_mean((base - coarse).abs(), valid),
            masked_mean(residual.abs(), valid),
        )


def lowpass(depth: Tensor, deviation: float) -> Tensor:
    """Depth [B, 1, H, W], 0 = no measurement, blurred by a Gaussian of that standard deviation in pixels.

    Only valid pixels count: the blurred depth is divided by the blurred mask of valid pixels (normalised
    convolution, Knutsson and Westin, CVPR 1993). Far from any valid pixel the result is 0.
    """
    radius = max(1, round(3 * deviation))
    at = torch.arange(-radius, radius + 1, device=depth.device, dtype=depth.dtype)
    kernel = torch.exp(-0.5 * (at / deviation) ** 2)

    def blur(x: Tensor) -> Tensor:
        x = F.conv2d(x, kernel.view(1, 1, 1, -1), padding=(0, radius))
        return F.conv2d(x, kernel.view(1, 1, -1, 1), padding=(radius, 0))

    share = blur((depth > 0).to(depth.dtype))
    return torch.where(share > 0, blur(depth) / share.clamp(min=torch.finfo(depth.dtype).tiny), 0.0)
