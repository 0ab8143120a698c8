"""Microphone noise added to the cells of a spectrogram, without a waveform."""

from collections.abc import Callable

import torch
from torch import Tensor

_LENGTH = 16  # spectrograms of noise, side by side


class CellNoise:
    """The power that white noise adds to cells of given power, with the texture of the real thing.

    A cell's power |X + N|² is |X|² + |N|² + 2 Re(X N*), averaged over the cell. Here |N|² is a random piece
    of a long spectrogram of noise. So is the cross term: it was computed with another noise instead of X,
    relative to the magnitude of that noise. A cell of magnitude m (the square root of its mean power) with
    noise of amplitude σ thus has the power m² + σ m cross + σ² own, which is never negative. Mean, spread and
    the correlation between neighbouring cells are those of noise on the waveform; only the phase of X, which
    a spectrogram lacks, is replaced by that of another signal.

    Args:
        power: from waveforms [B, T] to the mean power of cells [B, S, S].
        samples: T.
    """

    def __init__(self, power: Callable[[Tensor], Tensor], samples: int) -> None:
        generator = torch.Generator().manual_seed(0)
        noise, signal = torch.randn(2, _LENGTH, samples, generator=generator)
        own, other, both = power(noise), power(signal), power(noise + signal)
        cross = (both - own - other) / other.sqrt()
        # [S, length · S]: time runs on along a row
        self.own, self.cross = (x.transpose(0, 1).flatten(1).contiguous() for x in (own, cross))

    def add(self, magnitude: Tensor, amplitude: float) -> Tensor:
        """The power of cells [S, S] with noise of that amplitude (1 is full scale) on them.

        Which piece of noise it is comes from torch's global random state.
        """
        size = magnitude.shape[-1]
        start = int(torch.randint(self.own.shape[1] - size + 1, ()))
        own, cross = (x[:, start : start + size] for x in (self.own, self.cross))
        power = torch.add(magnitude, cross, alpha=amplitude).mul_(magnitude)
        return power.add_(own, alpha=amplitude**2)
