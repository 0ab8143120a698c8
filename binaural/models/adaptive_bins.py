"""Depth as a classification over adaptive bins, and distillation from camera to sound."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from binaural.features import MAGNITUDE, channel_names, check_features
from binaural.losses import DepthLoss, masked_mean, valid_pixels
from binaural.models.blocks import Decoder, Encoder
from binaural.models.checks import check_input, check_sizes
from binaural.models.levels import level_channels
from binaural.models.pretrained import Pretrained

_NARROWEST = 1e-3  # of a bin, before normalisation, as in AdaBins


class BinnedDepth(NamedTuple):
    """The output of an `AdaptiveBinsNet`.

    Attributes:
        depth: [B, 1, H, W], metres.
        centres: [B, bins], metres, ascending.
        features: [B, C, H, W], the input of the classification.
    """

    depth: Tensor
    centres: Tensor
    features: Tensor


class AdaptiveBinsNet(Pretrained, nn.Module):
    """Depth as the mean of bin centres by their probability in each pixel; each scene has bins of its own.

    After Bhat et al., "AdaBins: Depth Estimation using Adaptive Bins", CVPR 2021, with the encoder and
    decoder of `UNet`. The bin widths come from the mean of the deepest features over the picture, where
    AdaBins has a small transformer over patches.

    Args:
        base_channels: channels of the finest level; the five levels have 1, 2, 4, 8, 8 times as many.
        max_depth: the bins share the range from 0 to this, metres.
        bins: how many.
        features: kinds of input channels, names in `binaural.features.FEATURES`.

    Raises:
        ValueError: sizes that are not positive, fewer than 2 bins, unknown features.
    """

    def __init__(
        self,
        base_channels: int = 64,
        max_depth: float = 30.0,
        bins: int = 64,
        features: Sequence[str] = MAGNITUDE,
    ) -> None:
        super().__init__()
        check_sizes(base_channels, max_depth)
        if bins < 2:
            raise ValueError(f"bins must be at least 2, got {bins}")
        self.features = check_features(features)
        self.max_depth = max_depth
        self.arguments: dict[str, Any] = {
            "base_channels": base_channels,
            "max_depth": max_depth,
            "bins": bins,
            "features": self.features,
        }
        channels = level_channels(base_channels)
        self.encoder = Encoder(len(channel_names(self.features)), channels)
        self.decoder = Decoder(channels)
        self.widths = nn.Sequential(
            nn.Linear(channels[-1], channels[-1]), nn.LeakyReLU(), nn.Linear(channels[-1], bins)
        )
        self.classify = nn.Conv2d(channels[0], bins, 1)

    def forward(self, x: Tensor) -> Tensor | BinnedDepth:
        """[B, C of the features, H, W] → depth [B, 1, H, W], metres in [0, max_depth].

        In training mode the full output of `see`, which the losses take.
        """
        seen = self.see(x)
        return seen if self.training else seen.depth

    def see(self, x: Tensor) -> BinnedDepth:
        """Depth, and the bins and features that it comes from."""
        check_input(x, self.features)
        levels = self.encoder(x)
        features = self.decoder(levels)
        widths = F.relu(self.widths(levels[-1].mean((2, 3))).float()) + _NARROWEST
        widths = self.max_depth * widths / widths.sum(1, keepdim=True)
        centres = widths.cumsum(1) - widths / 2
        probabilities = torch.softmax(self.classify(features).float(), dim=1)
        depth = torch.einsum("bkhw,bk->bhw", probabilities, centres)[:, None]
        return BinnedDepth(depth, centres, features)


class AdaptiveBinsLoss(DepthLoss):
    """The loss of AdaBins: scale-invariant error of log depth, and bin centres near depths that are there.

    silog = 10 √(mean g² - 0.85 (mean g)²) with g = log prediction - log target (Eigen et al., 2014, as
    AdaBins weighs it); chamfer = mean squared distance, m², of every valid depth to the nearest bin centre,
    plus that of every centre to the nearest valid depth. Both over the valid pixels of the batch.

    Args:
        lambda_silog, lambda_chamfer: the weights.
    """

    terms = ("silog", "chamfer")

    def __init__(self, lambda_silog: float = 1.0, lambda_chamfer: float = 0.1) -> None:
        super().__init__()
        self.weights = (lambda_silog, lambda_chamfer)

    def forward(self, output: BinnedDepth, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch; `target` [B, 1, H, W] in metres, ≤ 0 or not finite: nothing was measured."""
        valid = valid_pixels(target)
        g = output.depth.clamp(min=1e-3).log() - torch.where(valid, target, 1.0).log()
        variance = masked_mean(g.square(), valid) - 0.85 * masked_mean(g, valid).square()
        return self.weigh(10 * variance.clamp(min=1e-6).sqrt(), chamfer(output.centres, target, valid))


class DistillationLoss(DepthLoss):
    """Loss of an audio student against the true depth and its teacher's depth, bins and features.

    recon = mean |depth - target| over valid pixels and depth = mean |depth - teacher's| over all, metres;
    bins = mean |centre - teacher's|, metres; features = mean of 1 - cosine of what student and teacher
    classify, pixel by pixel. All weighted.

    Args:
        teacher: trained on camera pictures, with the student's channels, bins and largest depth; it is put
            into evaluation mode and learns nothing.
        lambda_recon, lambda_depth, lambda_bins, lambda_features: the weights.
    """

    terms = ("recon", "depth", "bins", "features")

    def __init__(
        self,
        teacher: AdaptiveBinsNet,
        lambda_recon: float = 1.0,
        lambda_depth: float = 0.5,
        lambda_bins: float = 0.1,
        lambda_features: float = 0.1,
    ) -> None:
        super().__init__()
        self.teacher = teacher.eval().requires_grad_(False)
        self.weights = (lambda_recon, lambda_depth, lambda_bins, lambda_features)

    def forward(self, output: BinnedDepth, target: Tensor, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch.

        Args:
            output: the student's.
            target: [B, 1, H, W] in metres, ≤ 0 or not finite: nothing was measured.
            picture: [B, 3, H, W], the camera's picture, the teacher's input.
        """
        with torch.no_grad():
            taught = self.teacher.see(picture)
        valid = valid_pixels(target)
        alike = F.cosine_similarity(output.features.float(), taught.features.float(), dim=1)
        return self.weigh(
            masked_mean((output.depth - torch.where(valid, target, 0.0)).abs(), valid),
            (output.depth - taught.depth).abs().mean(),
            (output.centres - taught.centres).abs().mean(),
            (1 - alike).mean(),
        )


def chamfer(centres: Tensor, depth: Tensor, valid: Tensor) -> Tensor:
    """Mean squared distance of valid depths to the nearest bin centre, plus that of centres to depths.

    Args:
        centres: [B, bins], metres, ascending.
        depth: [B, 1, H, W], metres.
        valid: the same shape; pixels that count. An image without any does not count.

    Returns:
        A scalar with a gradient with respect to `centres`.
    """
    valid = valid.flatten(1)
    measured = valid.any(1, keepdim=True)
    points = torch.where(valid, depth.flatten(1), torch.inf).sort(1).values  # what is not valid stands last
    points = torch.where(measured, points, 0.0)
    valid = points.isfinite() & measured
    to_centres = masked_mean(_squared_distance(torch.where(valid, points, 0.0), centres), valid)
    to_points = masked_mean(_squared_distance(centres, points), measured.expand_as(centres))
    return to_centres + to_points


def _squared_distance(queries: Tensor, ascending: Tensor) -> Tensor:
    """Of each query [B, Q] to the nearest value of `ascending` [B, N], N > 1."""
    with torch.no_grad():
        above = torch.searchsorted(ascending, queries.contiguous()).clamp(1, ascending.shape[1] - 1)
        below = above - 1
        nearer = (queries - ascending.gather(1, below)).abs() <= (ascending.gather(1, above) - queries).abs()
        nearest = torch.where(nearer, below, above)
    return (queries - ascending.gather(1, nearest)).square()
