"""Augmentation that respects the physics of echoes.

All of it draws from torch's global random state, so a seed repeats it.
"""

import torch
from torch import Tensor

from binaural.data.noise import CellNoise

GAIN_DB = 6.0
NOISE_DB = (-80.0, -55.0)
"""Range of the added noise's root mean square, relative to full scale; a real recording's own lies at -48
to -57."""


def mirror(ears: Tensor, *seen: Tensor) -> tuple[Tensor, ...]:
    """The room seen in a mirror: ears [2, ...] swapped and maps [..., W] flipped left to right, together."""
    return ears.flip(0), *(x.flip(-1) for x in seen)


def augment(waveform: Tensor, *seen: Tensor) -> tuple[Tensor, ...]:
    """A random variation of a recording: waveform [2, T] (left, right), and depth and picture [..., H, W].

    With probability one half the room is mirrored. One gain within ±6 dB scales both ears, which keeps the
    level difference between them; microphone noise is independent in each ear.
    """
    if torch.rand(()) < 0.5:
        waveform, *seen = mirror(waveform, *seen)  # type: ignore[assignment]
    gain = _amplitude(_uniform(-GAIN_DB, GAIN_DB))
    noise = _amplitude(_uniform(*NOISE_DB))
    return gain * waveform + noise * torch.randn_like(waveform), *seen


def augment_cells(magnitude: Tensor, *seen: Tensor, noise: CellNoise) -> tuple[Tensor, ...]:
    """The same random variation where only the magnitude of a spectrogram's cells is known.

    Args:
        magnitude: square root of the mean power of each cell, [2, S, S] (left, right).
        seen: depth and picture [..., H, W].
        noise: that fits the cells.

    Returns:
        the power of each cell, float32 [2, S, S], and what is seen.
    """
    if torch.rand(()) < 0.5:
        magnitude, *seen = mirror(magnitude, *seen)  # type: ignore[assignment]
    gain = float(_amplitude(_uniform(-GAIN_DB, GAIN_DB)))
    amplitude = float(_amplitude(_uniform(*NOISE_DB)))
    return torch.stack([noise.add(gain * ear.float(), amplitude) for ear in magnitude]), *seen


def _uniform(low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(())


def _amplitude(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 20)
