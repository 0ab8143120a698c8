"""The metrics of each image, and what becomes of them when the ears are tampered with."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from binaural.evaluate.measuring import predict
from binaural.evaluate.protocol import Protocol
from binaural.features import CAMERA, MAGNITUDE, mute, swap_ears
from binaural.losses import valid_pixels
from binaural.metrics import depth_metrics

Floats = NDArray[np.float64]

CONTROLS = ("left_muted", "right_muted", "swapped")
"""Left ear or right ear hears silence; ears swapped, measured against the mirrored truth."""

MIRRORING = ("with_mirrored", "with_original", "left_right_difference", "left_right_truth")
"""Correlations, over the pixels, of the prediction from swapped ears: with the original prediction
mirrored, 1 if left and right are told apart by the ears alone; with the original as it is, 1 if the ears do
not matter; and of the difference between either half and the other, left minus right, with that of the
mirrored original, which leaves out what all rooms have in common. A symmetric network has 1 there by
construction, whatever it has learned. So last, the same difference of the prediction from the ears as they
are with that of the truth, where both halves were measured: 1 if every side is told right, 0 by chance."""


@dataclass(frozen=True)
class Measurements:
    """What a network did on N images.

    Attributes:
        pixels: [N] pixels that count.
        metrics: [N, 7] in the order of `METRICS`; NaN without a pixel.
        band_pixels, band_metrics: [N, bands] and [N, bands, 7], the same over the pixels of each band.
        controls: by the names in `CONTROLS`, [N, 7]; empty if they were not asked for.
        mirroring: [N, 4] in the order of `MIRRORING`; [0, 4] if it was not asked for.
    """

    pixels: NDArray[np.int64]
    metrics: Floats
    band_pixels: NDArray[np.int64]
    band_metrics: Floats
    controls: dict[str, Floats] = field(default_factory=dict)
    mirroring: Floats = field(default_factory=lambda: np.empty((0, len(MIRRORING))))

    @property
    def counted(self) -> NDArray[np.bool_]:
        """[N]: images with a pixel that counts."""
        return self.pixels > 0


def measure(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    protocol: Protocol,
    device: torch.device,
    *,
    features: Sequence[str] = MAGNITUDE,
    controls: bool = False,
) -> Measurements:
    """Measure `network`, in evaluation mode on `device`, image by image.

    Args:
        batches: pairs of inputs [B, C, H, W] and true depth [B, 1, S, S], metres, as `EvaluationSet` gives
            them.
        features: what the inputs are.
        controls: also mute and swap the ears, at four times the cost.

    Raises:
        ValueError: controls of a network that sees the camera's picture.
    """
    if controls and tuple(features) == CAMERA:
        raise ValueError("controls mute and swap ears; this network has none, it sees the camera's picture")
    collected: dict[str, list[Tensor]] = {}

    def collect(**tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            collected.setdefault(name, []).append(tensor.cpu())

    for heard, depth in batches:
        depth = depth.to(device)

        def see(heard: Tensor, size: torch.Size = depth.shape[-2:]) -> Tensor:
            return _fit(predict(network, heard, device=device), size, protocol.max_depth)

        prediction = see(heard)
        collect(pixels=_count(depth, protocol.threshold), metrics=_metrics(prediction, depth, protocol))
        bands = [
            torch.where((depth > low) & (depth <= high), depth, 0.0) for low, high in pairwise(protocol.bands)
        ]
        collect(
            band_pixels=torch.stack([_count(band, protocol.threshold) for band in bands], 1),
            band_metrics=torch.stack([_metrics(prediction, band, protocol) for band in bands], 1),
        )
        if controls:
            swapped = see(swap_ears(heard, features))
            collect(
                left_muted=_metrics(see(mute(heard, features, 0)), depth, protocol),
                right_muted=_metrics(see(mute(heard, features, 1)), depth, protocol),
                swapped=_metrics(swapped, depth.flip(-1), protocol),
                mirroring=_mirroring(prediction, swapped, depth),
            )
    arrays = {name: torch.cat(tensors).numpy() for name, tensors in collected.items()}
    tampered = {name: arrays.pop(name) for name in CONTROLS if name in arrays}
    return Measurements(controls=tampered, **arrays)


def _fit(prediction: Tensor, size: torch.Size, max_depth: float) -> Tensor:
    if prediction.shape[-2:] != size:
        prediction = F.interpolate(prediction, size=size, mode="bilinear", align_corners=False)
    return prediction.clamp(max=max_depth)


def _metrics(prediction: Tensor, depth: Tensor, protocol: Protocol) -> Tensor:
    return depth_metrics(prediction, depth, threshold=protocol.threshold)


def _count(depth: Tensor, threshold: float) -> Tensor:
    return (torch.isfinite(depth) & (depth > threshold)).flatten(1).sum(1)


def _mirroring(prediction: Tensor, swapped: Tensor, depth: Tensor) -> Tensor:
    """[B, 4] in the order of `MIRRORING`, of depth [B, 1, H, W]: predicted, from swapped ears, and true."""
    mirrored = prediction.flip(-1)
    valid = valid_pixels(depth)
    both = valid & valid.flip(-1)
    pairs = (
        (swapped, mirrored),
        (swapped, prediction),
        (swapped - swapped.flip(-1), mirrored - prediction),
        # Zeros elsewhere change no mean: what is left of a difference of halves is on the right its negative.
        tuple(torch.where(both, x - x.flip(-1), 0.0) for x in (prediction, depth)),
    )
    return torch.stack([correlation(a, b) for a, b in pairs], 1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, of each image's pixels: [B, ...] twice → [B] float64; NaN where either is constant."""
    a, b = (x.double().flatten(1) for x in (a, b))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
