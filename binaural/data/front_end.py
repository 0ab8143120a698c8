"""From the waveform of both ears to a network's input: modules for batches on any device.

All have the columns of `LogSpectrogram`, which are range; what the rows are differs.
"""

import math
from collections.abc import Callable, Sequence

import torch
import torchaudio.transforms
from torch import Tensor, nn
from torch.nn import functional as F

from binaural.data.files import SAMPLE_RATE
from binaural.data.spectrogram import WINDOW, LogSpectrogram, OfficialSpectrogram, TimeGrid
from binaural.features import CAMERA, MAGNITUDE, check_features


class InterauralPhase(nn.Module):
    """Interaural phase difference in the cells of `LogSpectrogram`: its sine and its cosine.

    Input [..., 2, T] (left, right), output [..., 2, S, S]. The phase is that of the cross-spectrum
    X_left · conj(X_right), summed over the windows and frequency bins of a cell: positive where the left ear
    leads. Where an ear is silent both are 0.
    """

    def __init__(self, duration: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = TimeGrid.over(duration, image_size)
        self.transform = torchaudio.transforms.Spectrogram(
            n_fft=2 * image_size * math.ceil(WINDOW / (2 * image_size)),
            win_length=WINDOW,
            hop_length=self.grid.hop,
            power=None,
            pad_mode="constant",
        )

    def forward(self, waveform: Tensor) -> Tensor:
        spectra = self.transform(self.grid.fit(waveform))[..., 1:, :-1]
        left, right = spectra.unbind(-3)
        size = self.image_size
        cross = (left * right.conj()).unflatten(-2, (size, -1)).unflatten(-1, (size, -1)).sum((-3, -1))
        cross = cross / cross.abs().clamp(min=torch.finfo(torch.float32).tiny)
        return torch.stack((cross.imag, cross.real), -3)


class Correlogram(nn.Module):
    """Short-time interaural cross-correlation with phase transform (GCC-PHAT): azimuth by range.

    Input [..., 2, T] (left, right), output [..., 1, S, S]: rows are lags from -1 ms to 1 ms, the right ear's
    time minus the left ear's, so that sound from the left is in the upper half of the indices; columns are
    time, one window of `WINDOW` samples round the middle of each. The S rows share the lags evenly. They are
    evaluated at least as densely as samples lie, between samples by Fourier interpolation, and a row shows
    the largest of its lags.

    Source: Knapp and Carter, "The generalized correlation method for estimation of time delay", IEEE
    Transactions on Acoustics, Speech, and Signal Processing 24 (1976).
    """

    WINDOW = 256
    LONGEST = 1e-3
    """Seconds; a head's lags reach 0.7 to 0.9 ms."""

    real_part: Tensor
    imaginary_part: Tensor
    window: Tensor

    def __init__(self, duration: int, image_size: int) -> None:
        super().__init__()
        self.grid = TimeGrid.over(duration, image_size)
        longest = self.LONGEST * SAMPLE_RATE
        self.lags_per_row = math.ceil((2 * longest + 1) / image_size)
        lags = image_size * self.lags_per_row
        lag = longest * ((2 * torch.arange(lags, dtype=torch.float64) + 1) / lags - 1)  # samples
        # Padded to twice the window, the correlation does not wrap round.
        frequencies = torch.arange(1, self.WINDOW + 1, dtype=torch.float64) * math.pi / self.WINDOW
        angle = frequencies[:, None] * lag
        self.register_buffer("real_part", (angle.cos() / self.WINDOW).float(), persistent=False)
        self.register_buffer("imaginary_part", (angle.sin() / self.WINDOW).float(), persistent=False)
        self.register_buffer("window", torch.hann_window(self.WINDOW), persistent=False)

    def forward(self, waveform: Tensor) -> Tensor:
        column = self.grid.column
        before = (self.WINDOW - column) // 2  # negative where a column is longer than the window
        padded = F.pad(self.grid.fit(waveform), (before, self.WINDOW - column - before))
        frames = padded.unfold(-1, self.WINDOW, column) * self.window  # [..., 2, S, window]
        left, right = torch.fft.rfft(frames, 2 * self.WINDOW)[..., 1:].unbind(-3)
        cross = left * right.conj()
        cross = cross / cross.abs().clamp(min=torch.finfo(torch.float32).tiny)
        correlation = cross.real @ self.real_part + cross.imag @ self.imaginary_part  # [..., S, lags]
        return correlation.unflatten(-1, (-1, self.lags_per_row)).amax(-1).mT.unsqueeze(-3)


class WaveformWindows(nn.Module):
    """The waveform itself, in windows: row r of a column is the sample r after the column's beginning.

    Input [..., 2, T] (left, right), output [..., 2, S, S], signs kept and amplitudes on a logarithmic scale
    (µ-law) that shows 90 dB, as `LogSpectrogram` does. Windows that are longer than a column overlap.

    Raises:
        ValueError: a column is longer than S samples, so that some would be lost.
    """

    MU = 10 ** (-LogSpectrogram.FLOOR_DB / 20)

    def __init__(self, duration: int, image_size: int) -> None:
        super().__init__()
        self.image_size = image_size
        self.grid = TimeGrid.over(duration, image_size)
        if self.grid.column > image_size:
            raise ValueError(
                f"waveform: a column of {self.grid.column} samples has more than image_size = {image_size} "
                "rows can show; expected a larger image_size or a smaller max_depth"
            )

    def forward(self, waveform: Tensor) -> Tensor:
        padded = F.pad(self.grid.fit(waveform), (0, self.image_size - self.grid.column))
        windows = padded.unfold(-1, self.image_size, self.grid.column).mT
        return windows.sign() * torch.log1p(self.MU * windows.abs()) / math.log1p(self.MU)


_MODULES: dict[str, Callable[[int, int], nn.Module]] = {
    "magnitude": LogSpectrogram,
    "ipd": InterauralPhase,
    "gcc_phat": Correlogram,
    "waveform": WaveformWindows,
}


class FrontEnd(nn.Module):
    """Several features of one waveform, one after the other.

    Input [..., 2, T] (left, right), output [..., C, S, S], float32, S = `image_size`.

    Args:
        features: names in `binaural.features.SOUND`.
        duration: samples that the columns must at least cover.
        image_size: rows and columns of the output.

    Attributes:
        num_samples: samples that are read; shorter input is padded with silence.

    Raises:
        ValueError: unknown features, or what one of them refuses.
    """

    def __init__(self, features: Sequence[str], duration: int, image_size: int) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(
            {name: _MODULES[name](duration, image_size) for name in check_features(features)}
        )
        self.num_samples = TimeGrid.over(duration, image_size).num_samples

    @property
    def spectrogram(self) -> LogSpectrogram | None:
        """The module of the feature magnitude, if that is among the features."""
        return next((m for m in self.modules() if isinstance(m, LogSpectrogram)), None)

    def forward(self, waveform: Tensor) -> Tensor:
        made = [part(waveform) for part in self.parts.values()]
        return made[0] if len(made) == 1 else torch.cat(made, -3)


def make_front_end(
    features: Sequence[str], duration: int, image_size: int, preprocessing: str
) -> FrontEnd | OfficialSpectrogram:
    """The module from waveforms [..., 2, T] to a network's input [..., C, S, S].

    The camera's picture is not made from a waveform; for it, this is the module of `MAGNITUDE`.

    Raises:
        ValueError: features other than the magnitude with the official preprocessing.
    """
    names = MAGNITUDE if tuple(features) == CAMERA else tuple(features)
    if preprocessing == "official":
        if names != MAGNITUDE:
            raise ValueError(
                f"the official preprocessing supports the feature magnitude alone, got {', '.join(features)}"
            )
        return OfficialSpectrogram(image_size)
    return FrontEnd(names, duration, image_size)
