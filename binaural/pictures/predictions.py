"""Predictions beside the true depth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from binaural.data import Echoes
from binaural.evaluate.protocol import EvaluationSet
from binaural.features import CAMERA, channel_names
from binaural.pictures.figures import hide_unmeasured, save_figure

_ROWS = 6


@torch.no_grad()
def draw_predictions(
    path: Path, network: nn.Module, dataset: Echoes | EvaluationSet, device: torch.device
) -> None:
    """Write a PNG with evenly spaced samples of the data set: input, prediction, true depth and error.

    Args:
        path: PNG file.
        network: in evaluation mode, on `device`.
        dataset: the data set; pixels without a measurement are grey.
        device: device of the network.
    """
    indices = torch.linspace(0, len(dataset) - 1, min(_ROWS, len(dataset))).round().long().tolist()
    samples = [dataset[index] for index in indices]
    inputs, depths = (torch.stack([sample[i] for sample in samples]) for i in (0, 1))
    predictions = network(inputs.to(device)).float().cpu()
    _draw_rows(path, _shown(inputs, dataset.features), predictions, depths)


def _shown(inputs: Tensor, features: Sequence[str]) -> dict[str, Any]:
    """The first two channels of inputs [B, C, S, S], or the camera's picture, by title."""
    if tuple(features) == CAMERA:
        return {"camera": inputs.permute(0, 2, 3, 1).numpy()}
    return {name: inputs[:, channel].numpy() for channel, name in enumerate(channel_names(features)[:2])}


def _draw_rows(path: Path, inputs: dict[str, Any], predictions: Tensor, depths: Tensor) -> None:
    """One row per sample: inputs by title, predictions and true depths [B, 1, H, W], metres."""
    rows = len(predictions)
    truth = hide_unmeasured(depths, depths)
    error = hide_unmeasured((predictions - depths).abs(), depths)
    farthest = float(np.nanmax(truth.filled(np.nan))) if truth.count() else 1.0
    worst = float(np.nanpercentile(error.filled(np.nan), 98)) if error.count() else 1.0
    low, high = min(x.min() for x in inputs.values()), max(x.max() for x in inputs.values())
    levels = {"vmin": float(low), "vmax": float(high), "cmap": "magma"}
    metres = {"vmin": 0.0, "vmax": farthest, "cmap": "viridis"}
    figure = Figure(figsize=(12, 2.3 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, len(inputs) + 3, squeeze=False)
    for row in range(rows):
        pictures: list[tuple[str, Any, dict[str, Any]]] = [
            *(
                (name, batch[row], {} if name == "camera" else {**levels, "origin": "lower"})
                for name, batch in inputs.items()
            ),
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
        if "left ear" in inputs:
            axes[row][0].set_ylabel("frequency →")
    if "camera" not in inputs:
        for axis in axes[-1][: len(inputs)]:
            axis.set_xlabel("time →")
    save_figure(figure, path)
