"""Checks of a waveform for faults of the recording: silent ears, clipping, a chirp at the wrong time."""

import torch
from torch import Tensor

from binaural.data.resampling import SAMPLE_RATE

SILENCE = 1e-4
"""Peak-to-peak amplitude of a dead channel, relative to full scale (-80 dB); microphone noise lies above."""

_EARS = ("left", "right")
_CLIPPED = 4  # samples at full scale; a recording that was normalised to its peak has one


def silent_ears(waveform: Tensor) -> list[str]:
    """Names of the ears of a waveform [2, T], full scale at 1, that hold a constant at most."""
    if waveform.shape[-1] == 0:
        return list(_EARS)
    silent = (waveform.amax(-1) - waveform.amin(-1)) < SILENCE
    return [name for name, is_silent in zip(_EARS, silent.tolist(), strict=True) if is_silent]


def describe_silence(ears: list[str]) -> str:
    """One clause on silent ears, for a message."""
    return "both ears are silent" if len(ears) == 2 else f"the {ears[0]} ear is silent"


def clipped_samples(waveform: Tensor) -> int:
    """How many samples of a waveform [2, T] are at full scale; 0 for fewer than a clipped peak has."""
    count = int((waveform.abs() >= 0.9999).sum())
    return count if count >= _CLIPPED else 0


def onset(waveform: Tensor) -> float:
    """Seconds until either ear of a waveform [2, T] first exceeds a fifth of the peak."""
    level = waveform.abs().amax(0)
    return int(torch.argmax((level > 0.2 * level.max()).int())) / SAMPLE_RATE


def recording_faults(waveform: Tensor, onsets: tuple[float, float] | None) -> list[str]:
    """Faults of a recording [2, T], full scale at 1: a clause for each.

    Args:
        waveform: the recording from its beginning.
        onsets: earliest and latest onset in seconds; None skips that check.
    """
    faults = []
    silent = silent_ears(waveform)
    if silent:
        faults.append(f"{describe_silence(silent)}; check the channels and the microphones")
    clipped = clipped_samples(waveform)
    if clipped:
        faults.append(f"clipped, {clipped} samples at full scale; record at a lower gain")
    if onsets is not None and len(silent) < 2 and not onsets[0] <= onset(waveform) <= onsets[1]:
        earliest, latest = (1000 * seconds for seconds in onsets)
        faults.append(
            f"the chirp arrives after {1000 * onset(waveform):.1f} ms, expected {earliest:.1f} to "
            f"{latest:.1f} ms as in the training data; cut or pad the beginning"
        )
    return faults
