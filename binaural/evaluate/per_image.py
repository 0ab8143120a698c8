"""The metrics of each image, also with an ear muted or the ears swapped."""

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
"""The left or the right ear silent; the ears swapped, measured against the mirrored true depth."""

MIRRORING = ("with_mirrored", "with_original", "left_right_difference", "left_right_truth")
"""Correlations over the pixels.

The first three are of the prediction from swapped ears. `with_mirrored`: with the mirrored prediction; 1 if
only the ears decide about left and right. `with_original`: with the prediction itself; 1 if the ears do not
matter. `left_right_difference`: of the left half minus the right half, with the same difference of the
mirrored prediction; the difference removes what all rooms have in common. A symmetric network has 1 there by
construction. `left_right_truth` is of the prediction from the ears as they are: its left half minus its right
half, with the same difference of the true depth where both halves are measured; 1 if left and right are
always correct, 0 by chance."""


@dataclass(frozen=True)
class Measurements:
    """The metrics of a network on N images.

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
        features: names of the input features.
        controls: also mute and swap the ears, which takes four times as long.

    Raises:
        ValueError: controls of a network whose input is the camera's picture.
    """
    if controls and tuple(features) == CAMERA:
        raise ValueError(
            "controls mute and swap the ears, but the input of this network is the camera's picture"
        )
    collected: dict[str, list[Tensor]] = {}

    def collect(**tensors: Tensor) -> None:
        for name, tensor in tensors.items():
            collected.setdefault(name, []).append(tensor.cpu())

    for inputs, depth in batches:
        depth = depth.to(device)

        def predict_depth(inputs: Tensor, size: torch.Size = depth.shape[-2:]) -> Tensor:
            return _fit(predict(network, inputs, device=device), size, protocol.max_depth)

        prediction = predict_depth(inputs)
        collect(pixels=_count(depth, protocol.threshold), metrics=_metrics(prediction, depth, protocol))
        bands = [
            torch.where((depth > low) & (depth <= high), depth, 0.0) for low, high in pairwise(protocol.bands)
        ]
        collect(
            band_pixels=torch.stack([_count(band, protocol.threshold) for band in bands], 1),
            band_metrics=torch.stack([_metrics(prediction, band, protocol) for band in bands], 1),
        )
        if controls:
            swapped = predict_depth(swap_ears(inputs, features))
            collect(
                left_muted=_metrics(predict_depth(mute(inputs, features, 0)), depth, protocol),
                right_muted=_metrics(predict_depth(mute(inputs, features, 1)), depth, protocol),
                swapped=_metrics(swapped, depth.flip(-1), protocol),
                mirroring=_mirroring(prediction, swapped, depth),
            )
    arrays = {name: torch.cat(tensors).numpy() for name, tensors in collected.items()}
    measured_controls = {name: arrays.pop(name) for name in CONTROLS if name in arrays}
    return Measurements(controls=measured_controls, **arrays)


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
        # Zeros elsewhere do not change the mean, which is 0: the right half is the negative of the left half.
        tuple(torch.where(both, x - x.flip(-1), 0.0) for x in (prediction, depth)),
    )
    return torch.stack([correlation(a, b) for a, b in pairs], 1)


def correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, of each image's pixels: [B, ...] twice → [B] float64; NaN where either is constant."""
    a, b = (x.double().flatten(1) for x in (a, b))
    a, b = (x - x.mean(1, keepdim=True) for x in (a, b))
    return (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))
