"""Predictions beside the truth."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from binaural.data import EchoDataset
from binaural.evaluation.protocol import EvaluationSet
from binaural.pictures.figures import hide_unmeasured, save_figure

_ROWS = 6


@torch.no_grad()
def draw_predictions(
    path: Path, network: nn.Module, dataset: EchoDataset | EvaluationSet, device: torch.device
) -> None:
    """A PNG with a few samples from all over the data set: both spectrograms, prediction, truth and error.

    Args:
        path: of the PNG.
        network: in evaluation mode, on `device`.
        dataset: whose samples are drawn; a pixel without a measurement is grey.
        device: of the network.
    """
    indices = torch.linspace(0, len(dataset) - 1, min(_ROWS, len(dataset))).round().long().tolist()
    samples = [dataset[index] for index in indices]
    spectrograms = torch.stack([spectrogram for spectrogram, _ in samples])
    depths = torch.stack([depth for _, depth in samples])
    predictions = network(spectrograms.to(device)).float().cpu()
    _draw_rows(path, spectrograms, predictions, depths)


def _draw_rows(path: Path, spectrograms: Tensor, predictions: Tensor, depths: Tensor) -> None:
    """One row a sample of spectrograms [B, 2, H, W], predictions and depths [B, 1, H, W], metres."""
    rows = len(spectrograms)
    truth = hide_unmeasured(depths, depths)
    error = hide_unmeasured((predictions - depths).abs(), depths)
    farthest = float(np.nanmax(truth.filled(np.nan))) if truth.count() else 1.0
    worst = float(np.nanpercentile(error.filled(np.nan), 98)) if error.count() else 1.0
    levels = {"vmin": float(spectrograms.min()), "vmax": float(spectrograms.max()), "cmap": "magma"}
    metres = {"vmin": 0.0, "vmax": farthest, "cmap": "viridis"}
    figure = Figure(figsize=(12, 2.3 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, 5, squeeze=False)
    for row in range(rows):
        sound = spectrograms[row].numpy()
        pictures: list[tuple[str, Any, dict[str, Any]]] = [
            ("left ear", sound[0], {**levels, "origin": "lower"}),
            ("right ear", sound[1], {**levels, "origin": "lower"}),
            ("predicted depth", predictions[row, 0].numpy(), metres),
            ("true depth", truth[row, 0], metres),
            ("absolute error", error[row, 0], {"vmin": 0.0, "vmax": worst, "cmap": "inferno"}),
        ]
        for axis, (title, picture, style) in zip(axes[row], pictures, strict=True):
            axis.set_facecolor("0.6")
            image = axis.imshow(picture, aspect="auto", **style)
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(title)
            if title == "true depth" or title == "absolute error":
                figure.colorbar(image, ax=axis, label="m")
        axes[row][0].set_ylabel("frequency →")
    for axis in axes[-1][:2]:
        axis.set_xlabel("time →")
    save_figure(figure, path)
