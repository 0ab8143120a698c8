"""Metrics of a network over batches, and the constant prediction that it has to beat."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from binaural.device import autocast
from binaural.metrics import DepthMetrics


def evaluate(
    network: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
    threshold: float = 0.0,
) -> DepthMetrics:
    """The metrics of `network` over all batches; it is left in the mode it was in.

    Args:
        network: spectrograms [B, 2, H, W] → depth [B, 1, H, W], metres.
        batches: pairs of spectrograms and depth [B, 1, H, W], metres, 0 = no measurement.
        device: where `network` is.
        precision: of autocast; float32 means none.
        threshold: metres; pixels count whose true depth is above it.
    """
    metrics = DepthMetrics(threshold=threshold, device=device)
    was_training = network.training
    network.eval()
    for spectrogram, depth in batches:
        prediction = predict(network, spectrogram, device=device, precision=precision)
        metrics.update(prediction, depth.to(device, non_blocking=True))
    network.train(was_training)
    return metrics


@torch.no_grad()
def predict(
    network: nn.Module,
    spectrogram: Tensor,
    *,
    device: torch.device,
    precision: torch.dtype = torch.float32,
) -> Tensor:
    """Depth [B, 1, H, W] in metres, float32, on `device`, from spectrograms [B, 2, H, W].

    The arguments are those of `evaluate`; the caller sets the mode of the network.
    """
    spectrogram = spectrogram.to(device, non_blocking=True, memory_format=torch.channels_last)
    with autocast(device, precision):
        return network(spectrogram).float()


def mean_depth(depths: Iterable[Tensor]) -> float:
    """Mean over all valid pixels, metres: the constant prediction with the least squared error.

    Args:
        depths: maps of any shape, metres; ≤ 0 or not finite means no measurement.

    Returns:
        NaN if no pixel is valid.
    """
    total, count = 0.0, 0
    for depth in depths:
        valid = depth[torch.isfinite(depth) & (depth > 0)]
        total, count = total + float(valid.double().sum()), count + valid.numel()
    return total / count if count else math.nan


class ConstantPredictor(nn.Module):
    """Predicts the same depth everywhere: spectrograms [B, 2, H, W] → [B, 1, H, W]."""

    def __init__(self, depth: float) -> None:
        super().__init__()
        self.depth = depth

    def forward(self, x: Tensor) -> Tensor:
        return x.new_full((x.shape[0], 1, *x.shape[2:]), self.depth)
