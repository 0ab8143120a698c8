"""What the attention of one level has matched, for people."""

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
from binaural.visualize.matches import Matching

_LOUD = 40.0  # decibels below the loudest cell at which colour has faded out
_HIGHEST = SAMPLE_RATE / 2000  # kHz


@dataclass(frozen=True)
class Heard:
    """A recording as a level hears it.

    Attributes:
        decibels: [2, H, W], level of left and right ear in the cells of that level.
        matching: its attention on them.
        swapped: its attention with the ears swapped.
        step_ms: milliseconds of a time step.
    """

    decibels: Tensor
    matching: Matching
    swapped: Matching
    step_ms: float


def draw_attention(path: Path, title: str, heard: Heard, lag_bias: Tensor | None) -> None:
    """A PNG of lag distributions, expected lags and level differences, as they are and with swapped ears.

    Args:
        path: of the PNG.
        title: above all.
        heard: what is drawn.
        lag_bias: the level's learned one, [heads, 2 L + 1]; None where it has none.
    """
    figure = Figure(figsize=(15, 14.5), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(4, 3)
    _draw_levels(figure, grid[0], heard)
    _draw_bias(grid[0][2], lag_bias, heard.step_ms)
    _draw_distributions(figure, grid[1], heard)
    _draw_lags(figure, grid[2], heard)
    _draw_level_differences(figure, grid[3], heard)
    save_figure(figure, path)


def _draw_levels(figure: Figure, axes: Any, heard: Heard) -> None:
    style = {"vmin": float(heard.decibels.min()), "vmax": float(heard.decibels.max()), "cmap": "magma"}
    for axis, ear, level in zip(axes, ("left", "right"), heard.decibels, strict=False):
        _draw_map(figure, axis, heard, level, f"{ear} ear", "level, dB", style)


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


def _draw_distributions(figure: Figure, axes: Any, heard: Heard) -> None:
    """Per frequency against no preference; the last axis: all frequencies, as they are and swapped."""
    shares, chance = heard.matching.lag_distributions(), heard.matching.without_preference()
    steps = heard.decibels.shape[-1]
    shown = slice(steps // 2 - 1, 2 * steps - 1 - (steps // 2 - 1))  # longer lags have few pairs
    at = (torch.arange(2 * steps - 1) - (steps - 1))[shown] * heard.step_ms
    ends = (float(at[0]) - heard.step_ms / 2, float(at[-1]) + heard.step_ms / 2)
    titles = ("left reads right", "right reads left")
    for axis, share, none, reader in zip(axes, shares, chance.lag_distributions(), titles, strict=False):
        ratio = torch.log2((share / none)[:, shown].clamp(min=2**-4)).numpy()
        image = axis.imshow(
            ratio, origin="lower", aspect="auto", cmap="RdBu_r", vmin=-2, vmax=2, extent=(*ends, 0, _HIGHEST)
        )
        axis.set(title=f"lags, {reader}", xlabel=_LAG_LABEL, ylabel="kHz")
        bar = figure.colorbar(image, ax=axis, label="times no preference", ticks=[-2, -1, 0, 1, 2])
        bar.ax.set_yticklabels(["¼", "½", "1", "2", "4"])
    axis = axes[2]
    swapped = heard.swapped.lag_distributions()
    lines = (
        (shares[0], "left reads right", "C0", "-"),
        (shares[1], "right reads left", "C1", "-"),
        (swapped[0], "left reads right, ears swapped", "C0", ":"),
        (swapped[1], "right reads left, ears swapped", "C1", ":"),
        (chance.lag_distributions()[0], "no preference", "0.6", "--"),
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
    axis.legend(fontsize="small")


def _draw_lags(figure: Figure, axes: Any, heard: Heard) -> None:
    """At either end of a recording only lags of one sign exist: what no preference expects is taken away."""
    chance = heard.matching.without_preference().expected_lags()
    as_is = [a - b for a, b in zip(heard.matching.expected_lags(), chance, strict=True)]
    swapped = heard.swapped.expected_lags()[0] - chance[0]
    maps = [x * heard.step_ms for x in (*as_is, swapped)]
    _draw_maps(figure, axes, heard, maps, "expected lag", "ms from no preference")


def _draw_level_differences(figure: Figure, axes: Any, heard: Heard) -> None:
    left, right = heard.decibels
    as_is = heard.matching.level_differences(left, right)
    swapped = heard.swapped.level_differences(right, left)[0]
    _draw_maps(figure, axes, heard, [*as_is, swapped], "level difference at the match", "left - right, dB")


def _draw_maps(figure: Figure, axes: Any, heard: Heard, maps: list[Tensor], what: str, unit: str) -> None:
    """Left reading, right reading; and left reading with the ears swapped.

    Swapped, the left input is what the right ear heard: that map should be the one in the middle with the
    sign changed.
    """
    loud = heard.decibels.amax() - heard.decibels < _LOUD
    readers = (0, 1, 1)
    values = torch.cat([m[loud[ear]] for m, ear in zip(maps, readers, strict=True)])
    farthest = float(torch.quantile(values.abs(), 0.98))
    style = {"vmin": -farthest, "vmax": farthest, "cmap": "RdBu_r"}
    right = loud[1]  # what the right ear heard, the reader of both
    mirrored = float(correlation(maps[2][right][None], -maps[1][right][None]))
    titles = (
        f"{what}, left reads right",
        f"{what}, right reads left",
        f"ears swapped, left reads right: r = {mirrored:.2f}\nwith the middle one, sign changed",
    )
    for axis, ear, shown, title in zip(axes, readers, maps, titles, strict=True):
        fade = ((heard.decibels[ear] - heard.decibels.max()) / _LOUD + 1).clamp(0, 1)
        _draw_map(figure, axis, heard, shown, title, unit, {**style, "alpha": fade.numpy()})


def _draw_map(
    figure: Figure, axis: Axes, heard: Heard, values: Tensor, title: str, unit: str, style: dict[str, Any]
) -> None:
    """[H, W] over time and frequency; where a colour fades, the reader hears nothing."""
    axis.set_facecolor("0.8")
    end = values.shape[-1] * heard.step_ms
    image = axis.imshow(
        values.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, end, 0, _HIGHEST),
        **style,
    )
    axis.set(title=title, xlabel="time, ms", ylabel="kHz")
    scale = ScalarMappable(image.norm, image.cmap)  # of its own: one that fades would fade the scale
    figure.colorbar(scale, ax=axis, label=unit)
