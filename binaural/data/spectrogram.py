"""Spectrograms of both ears, as modules that work on batches on any device."""

import math
from dataclasses import dataclass

import torch
import torchaudio.transforms
from torch import Tensor, nn
from torch.nn import functional as F

WINDOW = 64
"""Length of the Hann window in samples (1.45 ms at 44.1 kHz), as in BatVision."""

HOP = 16
"""Longest step between windows in samples, as in BatVision."""


@dataclass(frozen=True)
class TimeGrid:
    """Time in columns of equal length, and each column in a whole number of windows.

    Attributes:
        columns: how many.
        windows_per_column: windows that begin in each.
        hop: samples from one to the next.
    """

    columns: int
    windows_per_column: int
    hop: int

    @classmethod
    def over(cls, duration: int, columns: int) -> "TimeGrid":
        """The shortest grid that covers `duration` samples with a hop of at most `HOP`.

        Raises:
            ValueError: a number that is not positive.
        """
        if min(duration, columns) < 1:
            raise ValueError(f"duration and image_size must be positive, got {duration} and {columns}")
        column = math.ceil(duration / columns)
        windows = math.ceil(column / HOP)
        return cls(columns, windows, math.ceil(column / windows))

    @property
    def column(self) -> int:
        """Samples of a column."""
        return self.hop * self.windows_per_column

    @property
    def num_samples(self) -> int:
        """Samples of all columns."""
        return self.column * self.columns

    def fit(self, waveform: Tensor) -> Tensor:
        """Waveform [..., T], cut or padded with silence to [..., num_samples]."""
        waveform = waveform[..., : self.num_samples]
        return F.pad(waveform, (0, self.num_samples - waveform.shape[-1]))


class LogSpectrogram(nn.Module):
    """Level of both ears in decibels over frequency and time, on one scale that the ears share.

    Input [..., T], output [..., image_size, image_size] (frequency upwards from row 0, time), float32. 0 dB
    maps to 1 and -90 dB, about the self-noise of BatVision's microphones above 8 kHz, to 0; a full-scale
    sinusoid stands at -6 dB. The scale is the same for both ears and for all recordings, so the level
    difference between the ears survives: 9 dB are a difference of 0.1.

    Every row averages a whole number of frequency bins and every column a whole number of windows (power is
    averaged, then the logarithm taken), so nothing is interpolated. For that the duration is rounded up to
    `num_samples`: shorter input is padded with silence, and what lies beyond is not read.

    Args:
        duration: samples that the columns must at least cover.
        image_size: rows and columns of the output.
        window: length of the Hann window in samples. Longer windows resolve frequencies better and times
            worse.
    """

    FLOOR_DB = -90.0

    MAGNITUDE_DTYPE = torch.float16
    """Type that holds the square root of `power`: exact to 0.004 dB, and to 0.02 dB at the floor."""

    def __init__(self, duration: int, image_size: int, *, window: int = WINDOW) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window must be positive, got {window}")
        self.grid = TimeGrid.over(duration, image_size)
        self.image_size = image_size
        # The bin at 0 Hz carries no echo, so there are n_fft / 2 = image_size * bins_per_row bins to show.
        self.bins_per_row = math.ceil(window / (2 * image_size))
        self.transform = torchaudio.transforms.Spectrogram(
            n_fft=2 * image_size * self.bins_per_row,
            win_length=window,
            hop_length=self.grid.hop,
            power=2.0,
            pad_mode="constant",
        )
        self.gain = float(self.transform.window.sum()) ** -2

    @property
    def num_samples(self) -> int:
        """Samples that are read."""
        return self.grid.num_samples

    def forward(self, waveform: Tensor) -> Tensor:
        return self.scale(self.power(waveform))

    def power(self, waveform: Tensor) -> Tensor:
        """Mean power of each cell, [..., image_size, image_size]; a full-scale sinusoid's peak is 1/4."""
        power = self.transform(self.grid.fit(waveform))[..., 1:, :-1]
        size = self.image_size
        return power.unflatten(-2, (size, -1)).unflatten(-1, (size, -1)).mean((-3, -1)) * self.gain

    def scale(self, power: Tensor) -> Tensor:
        """The network's input from the cells' power."""
        floor = 10 ** (self.FLOOR_DB / 10)
        return 1 - 10 * torch.log10(power + floor) / self.FLOOR_DB


class OfficialSpectrogram(nn.Module):
    """Magnitude as in BatVision's official code: window 64, hop 16, 512 points, resized bilinearly.

    Input [..., 2, T], output [..., 2, image_size, image_size]. No logarithm and no normalisation. The
    resize does not antialias, torchvision's default for tensors at the time of that code.

    Source: Brunetto et al., "The Audio-Visual BatVision Dataset for Research on Sight and Sound", IROS 2023.
    """

    MIN_SAMPLES = 257
    """Shortest waveform: its 256 samples of padding on either side are a reflection of it."""

    MAGNITUDE_DTYPE = torch.float32
    """Type that holds the square root of `power`: recordings of version 1 have no fixed full scale."""

    def __init__(self, image_size: int) -> None:
        super().__init__()
        if image_size < 1:
            raise ValueError(f"image_size must be positive, got {image_size}")
        self.image_size = image_size
        self.transform = torchaudio.transforms.Spectrogram(
            n_fft=512, win_length=WINDOW, hop_length=HOP, power=1.0
        )

    def power(self, waveform: Tensor) -> Tensor:
        """The output squared, [..., T] → [..., image_size, image_size]."""
        return self(waveform).square()

    def scale(self, power: Tensor) -> Tensor:
        """The network's input from the cells' power."""
        return power.sqrt()

    def forward(self, waveform: Tensor) -> Tensor:
        magnitude = self.transform(waveform)
        flat = magnitude.reshape(-1, 1, *magnitude.shape[-2:])
        resized = F.interpolate(flat, size=(self.image_size, self.image_size), mode="bilinear")
        return resized.reshape(*magnitude.shape[:-2], self.image_size, self.image_size)


def check_official_length(waveform: Tensor, name: object) -> None:
    """Refuse a waveform [..., T] that is too short for `OfficialSpectrogram`.

    Raises:
        ValueError: the message calls it `name`.
    """
    if waveform.shape[-1] < OfficialSpectrogram.MIN_SAMPLES:
        raise ValueError(
            f"{name}: {waveform.shape[-1]} samples at 44.1 kHz, expected at least "
            f"{OfficialSpectrogram.MIN_SAMPLES} with the official preprocessing"
        )
