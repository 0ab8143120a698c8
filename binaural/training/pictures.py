"""What a run shows at its end: predictions beside the truth, and its curves."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor, nn

from binaural.data import EchoDataset

_ROWS = 6


@torch.no_grad()
def draw_predictions(path: Path, network: nn.Module, dataset: EchoDataset, device: torch.device) -> None:
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
    truth = _hide_unmeasured(depths, depths)
    error = _hide_unmeasured((predictions - depths).abs(), depths)
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
    _save(figure, path)


def draw_curves(path: Path, log: list[dict[str, Any]]) -> None:
    """A PNG of loss, validation error and learning rate over the steps of a run's log."""
    steps = [record for record in log if record["kind"] == "train"]
    epochs = [record for record in log if record["kind"] == "validation"]
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    loss, error, rate = figure.subplots(1, 3)
    for name in ("loss", "recon", "edge", "smooth"):
        loss.plot([r["step"] for r in steps], [r[name] for r in steps], label=name, linewidth=1)
    loss.set(title="training loss", xlabel="step", yscale="log")
    loss.legend()
    for name in ("rmse", "mae"):
        error.plot(
            [r["step"] for r in epochs], [r[name] for r in epochs], label=name, marker="o", markersize=3
        )
    error.set(title="validation", xlabel="step", ylabel="m")
    error.legend()
    rate.plot([r["step"] for r in steps], [r["learning_rate"] for r in steps])
    rate.set(title="learning rate", xlabel="step")
    _save(figure, path)


def _hide_unmeasured(values: Tensor, depths: Tensor) -> np.ma.MaskedArray:
    return np.ma.masked_array(values.numpy(), mask=(depths <= 0).numpy())


def _save(figure: Figure, path: Path) -> None:
    # The canvas is made here, without pyplot: no global state, no window, whatever MPLBACKEND says.
    FigureCanvasAgg(figure)
    temporary = path.with_suffix(".tmp.png")
    figure.savefig(temporary, dpi=100)
    temporary.replace(path)
