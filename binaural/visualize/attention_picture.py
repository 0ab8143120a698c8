"""A figure of the lags and level differences that the attention of one level has matched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.figure import Figure
from torch import Tensor

from binaural.data.files import SAMPLE_RATE
from binaural.evaluate.per_image import correlation
from binaural.pictures.figures import save_figure
from binaural.visualize.matches import AttentionWeights

_LOUD = 40.0  # decibels below the loudest cell at which colour has faded out
_HIGHEST = SAMPLE_RATE / 2000  # kHz


@dataclass(frozen=True)
class MatchedRecording:
    """A recording at the resolution of one level, and the attention weights of that level.

    Attributes:
        decibels: [2, H, W], level of the left and the right ear in the level's cells.
        weights: attention weights.
        swapped: attention weights with the ears swapped.
        step_ms: duration of a time step, milliseconds.
    """

    decibels: Tensor
    weights: AttentionWeights
    swapped: AttentionWeights
    step_ms: float


def draw_attention(path: Path, title: str, recording: MatchedRecording, lag_bias: Tensor | None) -> None:
    """Write a PNG of lag distributions, expected lags and level differences, also with swapped ears.

    Args:
        path: PNG file.
        title: title of the figure.
        recording: the recording and its attention weights.
        lag_bias: the learned bias of the level, [heads, 2 L + 1]; None if it has none.
    """
    figure = Figure(figsize=(15, 14.5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(4, 3)
    _draw_levels(figure, grid[0], recording)
    _draw_bias(grid[0][2], lag_bias, recording.step_ms)
    _draw_distributions(figure, grid[1], recording)
    _draw_lags(figure, grid[2], recording)
    _draw_level_differences(figure, grid[3], recording)
    save_figure(figure, path)


def _draw_levels(figure: Figure, axes: Any, recording: MatchedRecording) -> None:
    style = {
        "vmin": float(recording.decibels.min()),
        "vmax": float(recording.decibels.max()),
        "cmap": "magma",
    }
    for axis, ear, level in zip(axes, ("left", "right"), recording.decibels, strict=False):
        _draw_map(figure, axis, recording, level, f"{ear} ear", "level, dB", style)


def _draw_bias(axis: Axes, lag_bias: Tensor | None, step_ms: float) -> None:
    axis.set(title="learned lag bias of each head", xlabel=_LAG_LABEL)
    if lag_bias is None:
        axis.text(0.5, 0.5, "none", ha="center", transform=axis.transAxes)
        return
    longest = lag_bias.shape[1] // 2
    at = np.arange(-longest, longest + 1) * step_ms
    for head, bias in enumerate(lag_bias.numpy()):
        axis.plot(at, bias, marker="o", markersize=3, linewidth=1, label=f"head {head + 1}")
    axis.axhline(0, color="0.7", linewidth=0.8)
    axis.legend(fontsize="small", ncols=2)


_LAG_LABEL = "lag, ms (positive: left ear first)"


def _draw_distributions(figure: Figure, axes: Any, recording: MatchedRecording) -> None:
    """By frequency, relative to uniform weights; last axis: over all frequencies, also with swapped ears."""
    shares, chance = recording.weights.lag_distributions(), recording.weights.without_preference()
    steps = recording.decibels.shape[-1]
    shown = slice(steps // 2 - 1, 2 * steps - 1 - (steps // 2 - 1))  # longer lags have few pairs
    at = (torch.arange(2 * steps - 1) - (steps - 1))[shown] * recording.step_ms
    ends = (float(at[0]) - recording.step_ms / 2, float(at[-1]) + recording.step_ms / 2)
    titles = ("left attends to right", "right attends to left")
    for axis, share, none, direction in zip(axes, shares, chance.lag_distributions(), titles, strict=False):
        ratio = torch.log2((share / none)[:, shown].clamp(min=2**-4)).numpy()
        image = axis.imshow(
            ratio, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-2, vmax=2, extent=(*ends, 0, _HIGHEST)
        )
        axis.set(title=f"lags, {direction}", xlabel=_LAG_LABEL, ylabel="kHz")
        bar = figure.colorbar(image, ax=axis, label="relative to uniform weights", ticks=[-2, -1, 0, 1, 2])
        bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    axis = axes[2]
    swapped = recording.swapped.lag_distributions()
    lines = (
        (shares[0], "left attends to right", "C0", "-"),
        (shares[1], "right attends to left", "C1", "-"),
        (swapped[0], "left attends to right, ears swapped", "C0", ":"),
        (swapped[1], "right attends to left, ears swapped", "C1", ":"),
        (chance.lag_distributions()[0], "uniform weights", "0.6", "--"),
    )
    for share, label, colour, style in lines:
        axis.plot(
            at.numpy(),
            share.mean(0)[shown].numpy(),
            label=label,
            color=colour,
            linestyle=style,
            linewidth=1.2,
        )
    axis.set(title="lags, all frequencies", xlabel=_LAG_LABEL, ylabel="share of weight", ylim=(0, None))
    axis.legend(fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.16))  # not over the peak


def _draw_lags(figure: Figure, axes: Any, recording: MatchedRecording) -> None:
    """Expected lags minus those of uniform weights, since only lags of one sign exist at either end."""
    chance = recording.weights.without_preference().expected_lags()
    as_is = [a - b for a, b in zip(recording.weights.expected_lags(), chance, strict=True)]
    swapped = recording.swapped.expected_lags()[0] - chance[0]
    maps = [x * recording.step_ms for x in (*as_is, swapped)]
    _draw_maps(figure, axes, recording, maps, "expected lag", "ms from uniform weights")


def _draw_level_differences(figure: Figure, axes: Any, recording: MatchedRecording) -> None:
    left, right = recording.decibels
    as_is = recording.weights.level_differences(left, right)
    swapped = recording.swapped.level_differences(right, left)[0]
    _draw_maps(
        figure, axes, recording, [*as_is, swapped], "level difference at the match", "left - right, dB"
    )


def _draw_maps(
    figure: Figure, axes: Any, recording: MatchedRecording, maps: list[Tensor], what: str, unit: str
) -> None:
    """Maps of left attending, right attending, and left attending with the ears swapped.

    With swapped ears the left input is the right ear's: the third map should be the second with its sign
    changed.
    """
    loud = recording.decibels.amax() - recording.decibels < _LOUD
    ears = (0, 1, 1)  # the ear whose time steps are the queries
    values = torch.cat([m[loud[ear]] for m, ear in zip(maps, ears, strict=True)])
    farthest = float(torch.quantile(values.abs(), 0.98))
    style = {"vmin": -farthest, "vmax": farthest, "cmap": "RdBu_r"}
    right = loud[1]
    mirrored = float(correlation(maps[2][right][None], -maps[1][right][None]))
    titles = (
        f"{what}, left attends to right",
        f"{what}, right attends to left",
        f"ears swapped, left attends to right: r = {mirrored:.2f}\nwith the middle one, sign changed",
    )
    for axis, ear, shown, title in zip(axes, ears, maps, titles, strict=True):
        fade = ((recording.decibels[ear] - recording.decibels.max()) / _LOUD + 1).clamp(0, 1)
        _draw_map(figure, axis, recording, shown, title, unit, {**style, "alpha": fade.numpy()})


def _draw_map(
    figure: Figure,
    axis: Axes,
    recording: MatchedRecording,
    values: Tensor,
    title: str,
    unit: str,
    style: dict[str, Any],
) -> None:
    """A map [H, W] over time and frequency; colours fade where the level is low."""
    axis.set_facecolor("0.8")
    end = values.shape[-1] * recording.step_ms
    image = axis.imshow(
        values.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, end, 0, _HIGHEST),
        **style,
    )
    axis.set(title=title, xlabel="time, ms", ylabel="kHz")
    scale = ScalarMappable(image.norm, image.cmap)  # without the map's transparency
    figure.colorbar(scale, ax=axis, label=unit)
