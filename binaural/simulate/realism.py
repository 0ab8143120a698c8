"""Simulated recordings beside a real one: a picture and a table to judge the resemblance by."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.fft import irfft, rfft
from scipy.signal import spectrogram

from binaural.data import BatVisionV2
from binaural.data.depth import millimetres, open_depth
from binaural.data.files import read_wav
from binaural.data.recording_checks import describe_silence, silent_ears
from binaural.simulate.constants import FRAMES, SAMPLE_RATE
from binaural.simulate.scene import Floats

COMPARED = 16  # simulated recordings: those whose median depth is nearest to the real one's
ENVELOPE_WINDOW = 88  # samples, 2 ms
BANDS = 1000 * 2 ** (np.arange(-15, 14) / 3)  # third octaves, 31 Hz to 20 kHz
EARLY = (269, 900)  # samples: the leak and the nearest echoes
LATE = (2000, 5000)
CORRELATED = (269, 4410)
LAGS = 48  # samples, 1.1 ms
# RMS levels in the table: name, first and last sample. The lead-in stops short of the leak.
LEVELS = (
    ("before the sweep", 0, 260),
    ("6 to 20 ms", 269, 900),
    ("20 to 45 ms", 900, 2000),
    ("45 to 91 ms", 2000, 4000),
    ("91 to 159 ms", 4000, 7000),
    ("after 227 ms", 10_000, FRAMES),
)


def check_report(real: Path, output: Path) -> None:
    """Raise what `draw_report` would, before anything is simulated for it.

    Raises:
        FileNotFoundError, ValueError: as `draw_report`.
        OSError: the picture cannot be written.
    """
    if output.suffix.lower() != ".png":
        raise ValueError(f"--report {output}: expected the name of a PNG file, such as report.png")
    if output.is_dir():
        raise IsADirectoryError(f"--report {output}: a folder, expected the name of a PNG file")
    _recordings(real, first=1)
    output.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=output.parent):
        pass


def draw_report(simulated: Path, real: Path, output: Path) -> None:
    """Draw simulated recordings beside a real one, and print the figures that the picture shows.

    The real recording is the first of the test split; the simulated ones are those of the test split
    that are most like it in median depth, because near walls sound unlike far ones.

    Args:
        simulated, real: data sets in BatVision V2's layout.
        output: PNG file to write.

    Raises:
        FileNotFoundError, ValueError: a data set is missing or malformed, or a recording has a silent ear.
    """
    (real_sound,), (real_depth,) = _recordings(real, first=1)
    sounds, depths = _recordings(simulated)
    distance = [abs(_median(map_) - _median(real_depth)) for map_ in depths]
    alike = np.argsort(distance, kind="stable")[:COMPARED]
    sounds, depths = [sounds[i] for i in alike], [depths[i] for i in alike]

    rows = [("quantity", "real", "simulated: median (10 % to 90 %)")]
    for (name, value), *values in zip(
        figures(real_sound, real_depth), *(figures(s, d) for s, d in zip(sounds, depths, strict=True)),
        strict=True,
    ):  # fmt: skip
        low, middle, high = np.percentile([v for _, v in values], [10, 50, 90])
        rows.append((name, f"{value:.2f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"))
    for name, left, right in rows:
        print(f"{name:<36}{left:>10}   {right}")

    figure = Figure(figsize=(15, 15), layout="constrained")
    grid = figure.subplot_mosaic(
        [
            ["onset real", "onset real", "onset simulated", "onset simulated"],
            ["envelope", "envelope", "spectrum", "spectrum"],
            ["correlation", "correlation", "depth real", "depth simulated"],
            ["spectrogram real", "spectrogram real", "spectrogram simulated", "spectrogram simulated"],
        ]
    )
    figure.suptitle(
        f"Real recording, and the {len(sounds)} simulated ones with the most similar median depth"
    )
    for name, sound, depth in (("real", real_sound, real_depth), ("simulated", sounds[0], depths[0])):
        _draw_onset(grid[f"onset {name}"], sound, name)
        _draw_depth(figure, grid[f"depth {name}"], depth, name)
        _draw_spectrogram(grid[f"spectrogram {name}"], sound[0], name)
    milliseconds = np.arange(FRAMES) / SAMPLE_RATE * 1000
    _draw_band(grid["envelope"], milliseconds, envelope(real_sound), [envelope(s) for s in sounds])
    grid["envelope"].set(title="Envelope", xlabel="ms", ylabel="dB re full scale", xlim=(0, 300))
    for part, (start, stop) in (("early", EARLY), ("late", LATE)):
        _draw_band(
            grid["spectrum"],
            BANDS,
            bands(real_sound[:, start:stop]),
            [bands(s[:, start:stop]) for s in sounds],
            f"{part}, {start / 44.1:.0f} to {stop / 44.1:.0f} ms",
        )
    grid["spectrum"].set(
        title="Spectrum, third octaves", xlabel="Hz", ylabel="dB re full scale² / Hz", xscale="log"
    )
    lag = np.arange(-LAGS, LAGS + 1) / SAMPLE_RATE * 1000
    _draw_band(grid["correlation"], lag, gcc_phat(real_sound), [gcc_phat(s) for s in sounds])
    grid["correlation"].set(
        title="GCC-PHAT between the ears, 6 to 100 ms",
        xlabel="lag of the right ear, ms",
        ylabel="correlation",
    )
    for name in ("envelope", "spectrum", "correlation"):
        grid[name].legend(fontsize=8)
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=80)


def figures(sound: Floats, depth: Floats) -> list[tuple[str, float]]:
    """Rows of the table (name, value), for a recording [2, FRAMES] and its depth map in millimetres."""
    rows = [
        (f"level {name}, dB", float(10 * np.log10(np.mean(sound[:, start:stop] ** 2) + 1e-20)))
        for name, start, stop in LEVELS
    ]
    rows.append(("peak, full scale", float(np.abs(sound).max())))
    loud = np.abs(sound).max(axis=0) > 0.2 * np.abs(sound).max()
    rows.append(("onset, ms", float(np.argmax(loud) / SAMPLE_RATE * 1000)))
    correlation = gcc_phat(sound)
    rows.append(("GCC-PHAT peak", float(correlation.max())))
    rows.append(("GCC-PHAT peak lag, ms", float((np.argmax(correlation) - LAGS) / SAMPLE_RATE * 1000)))
    rows.append(("depth missing, %", float(100 * np.mean(depth == 0))))
    rows.append(("depth median, m", _median(depth)))
    return rows


def envelope(sound: Floats) -> Floats:
    """RMS level of both ears in windows of 2 ms, dB re full scale, [FRAMES]."""
    power = np.mean(sound**2, axis=0)
    smooth = np.convolve(power, np.full(ENVELOPE_WINDOW, 1 / ENVELOPE_WINDOW), mode="same")
    return 10 * np.log10(smooth + 1e-12)


def bands(sound: Floats) -> Floats:
    """Mean power density of both ears [2, N] per third octave, dB re full scale squared per Hz."""
    count = sound.shape[1]
    window = np.hanning(count)
    size = 1 << 16  # so fine that every band holds bins
    power = np.mean(np.abs(rfft(sound * window, size)) ** 2, axis=0) * 2 / SAMPLE_RATE / np.sum(window**2)
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    edges = np.append(BANDS / 2 ** (1 / 6), BANDS[-1] * 2 ** (1 / 6))
    return np.array(
        [
            10 * np.log10(power[(frequency >= low) & (frequency < high)].mean() + 1e-20)
            for low, high in pairwise(edges)
        ]
    )


def gcc_phat(sound: Floats) -> Floats:
    """Generalised cross-correlation with phase transform (Knapp and Carter, 1976), lags within 1.1 ms."""
    left, right = rfft(sound[:, slice(*CORRELATED)], 1 << 13)
    cross = np.conj(left) * right
    correlation = irfft(cross / (np.abs(cross) + 1e-12))
    return np.concatenate([correlation[-LAGS:], correlation[: LAGS + 1]])


def _recordings(root: Path, first: int | None = None) -> tuple[list[Floats], list[Floats]]:
    recordings = BatVisionV2(root, "test").recordings[:first]
    sounds: list[Floats] = []
    for recording in recordings:
        waveform, _ = read_wav(recording.audio[0], FRAMES)
        if waveform.shape[1] != FRAMES:
            raise ValueError(f"{recording.audio[0]}: {waveform.shape[1]} frames, expected {FRAMES}")
        silent = silent_ears(waveform)
        if silent:
            raise ValueError(f"{recording.audio[0]}: {describe_silence(silent)}, nothing to compare")
        sounds.append(waveform.numpy().astype(np.float64))
    depths = [millimetres(open_depth(r.depth), r.depth).numpy() for r in recordings]
    return sounds, depths


def _median(depth: Floats) -> float:
    """Median of the measured depths in metres; 0 where nothing was measured."""
    measured = depth[depth > 0]
    return float(np.median(measured)) / 1000 if measured.size else 0.0


def _draw_onset(axes: Axes, sound: Floats, name: str) -> None:
    shown = slice(200, 900)
    time = np.arange(FRAMES)[shown] / SAMPLE_RATE * 1000
    for ear, signal in zip(("left", "right"), sound, strict=True):
        axes.plot(time, signal[shown], label=ear, linewidth=0.8)
    axes.set(title=f"Onset, {name}", xlabel="ms", ylabel="full scale", ylim=(-1, 1))
    axes.legend(fontsize=8)


def _draw_band(axes: Axes, at: Floats, real: Floats, simulated: list[Floats], name: str = "") -> None:
    """A real curve over the median and the 10 % to 90 % range of simulated ones."""
    suffix = f" ({name})" if name else ""
    low, middle, high = np.percentile(simulated, [10, 50, 90], axis=0)
    (line,) = axes.plot(at, middle, linewidth=0.8, linestyle="--", label=f"simulated, median{suffix}")
    axes.fill_between(at, low, high, alpha=0.25, color=line.get_color(), linewidth=0)
    axes.plot(at, real, linewidth=1.0, color=line.get_color(), label=f"real{suffix}")


def _draw_spectrogram(axes: Axes, signal: Floats, name: str) -> None:
    frequency, time, power = spectrogram(signal[:8820], SAMPLE_RATE, nperseg=256, noverlap=224)
    axes.pcolormesh(
        time * 1000, frequency / 1000, 10 * np.log10(power + 1e-15), vmin=-120, vmax=-45, cmap="magma"
    )
    axes.set(title=f"Left ear, {name}", xlabel="ms", ylabel="kHz")


def _draw_depth(figure: Figure, axes: Axes, depth: Floats, name: str) -> None:
    metres = np.ma.masked_equal(depth, 0) / 1000
    measured = metres.compressed()
    farthest = float(np.percentile(measured, 99)) if measured.size else 1.0
    image = axes.imshow(metres, cmap="viridis", vmin=0, vmax=farthest)
    axes.set(title=f"Depth, {name}: {100 * np.mean(depth == 0):.0f} % missing", xticks=[], yticks=[])
    axes.set_facecolor("lightgrey")
    figure.colorbar(image, ax=axes, label="m", shrink=0.7)
