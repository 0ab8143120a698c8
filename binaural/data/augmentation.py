"""Augmentation that respects the physics of echoes.

All of it draws from torch's global random state, so a seed repeats it.
"""

import torch
from torch import Tensor

GAIN_DB = 6.0
NOISE_DB = (-80.0, -55.0)
"""Range of the added noise's root mean square, relative to full scale; a real recording's own lies at -48
to -57."""


def mirror(ears: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """The room seen in a mirror: ears [2, ...] swapped and depth [..., W] flipped left to right, together."""
    return ears.flip(0), depth.flip(-1)


def augment(waveform: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
    """A random variation of a recording: waveform [2, T] (left, right) and depth [1, H, W].

    With probability one half the room is mirrored. One gain within ±6 dB scales both ears, which keeps the
    level difference between them; microphone noise is independent in each ear.
    """
    if torch.rand(()) < 0.5:
        waveform, depth = mirror(waveform, depth)
    gain = _amplitude(_uniform(-GAIN_DB, GAIN_DB))
    noise = _amplitude(_uniform(*NOISE_DB))
    return gain * waveform + noise * torch.randn_like(waveform), depth


def _uniform(low: float, high: float) -> Tensor:
    return low + (high - low) * torch.rand(())


def _amplitude(decibels: Tensor) -> Tensor:
    return 10 ** (decibels / 20)
