"""Augmentation that keeps the relation between echoes and depth.

Random numbers come from torch's global generator, so `torch.manual_seed` repeats them.
"""

import torch
from torch import Tensor

from binaural.data.noise import CellNoise

GAIN_DB = 6.0
NOISE_DB = (-80.0, -55.0)
"""Range of the added noise's root mean square, relative to full scale; real recordings have -57 to -48 dB."""


def mirror(ears: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    """The mirrored room: ears [2, ...] swapped, and maps [..., W] flipped left to right."""
    return ears.flip(0), *(x.flip(-1) for x in maps)


def augment(waveform: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
    """A random variation of a recording: waveform [2, T] (left, right), and depth and picture [..., H, W].

    With probability one half the room is mirrored. One gain within ±6 dB scales both ears, which keeps the
    level difference between them; microphone noise is independent in each ear.
    """
    if torch.rand(()) < 0.5:
        waveform, *maps = mirror(waveform, *maps)  # type: ignore[assignment]
    gain = _amplitude(_uniform(-GAIN_DB, GAIN_DB))
    noise = _amplitude(_uniform(*NOISE_DB))
    return gain * waveform + noise * torch.randn_like(waveform), *maps


def augment_cells(magnitude: Tensor, *maps: Tensor, noise: CellNoise) -> tuple[Tensor, ...]:
    """The same random variation where only the magnitude of a spectrogram's cells is known.

    Args:
        magnitude: square root of the mean power of each cell, [2, S, S] (left, right).
        maps: depth and picture [..., H, W].
        noise: made for cells of this kind.

    Returns:
        the power of each cell, float32 [2, S, S], and the maps.
    """
    if torch.rand(()) < 0.5:
        magnitude, *maps = mirror(magnitude, *maps)  # type: ignore[assignment]
    gain = float(_amplitude(_uniform(-GAIN_DB, GAIN_DB)))
    amplitude = float(_amplitude(_uniform(*NOISE_DB)))
    return torch.stack([noise.add(gain * ear.float(), amplitude) for ear in magnitude]), *maps


def _uniform(low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(())


def _amplitude(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 20)
