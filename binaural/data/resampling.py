"""Resampling of recordings to the sample rate of the data sets."""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.signal import firwin, resample_poly

SAMPLE_RATE = 44100
"""Sample rate in Hz of all waveforms."""

RATES = (8_000, 384_000)
"""Lowest and highest sample rate in Hz of a recording."""

_ZERO_CROSSINGS = 24  # of the interpolating sinc, on either side
_KAISER_BETA = 9.0  # stop band at -90 dB, the floor of the spectrograms


def resample(samples: NDArray[np.float32], rate: int) -> NDArray[np.float32]:
    """Bring samples [T, C] from `rate` Hz to 44.1 kHz; the first sample keeps its time.

    A windowed sinc, evaluated at the ratio of the rates, however large the terms of that ratio are: memory
    grows with the rate (at most 1 GB), not with the product of both rates.
    """
    common = math.gcd(rate, SAMPLE_RATE)
    up, down = SAMPLE_RATE // common, rate // common
    return resample_poly(samples, up, down, axis=0, window=_taps(max(up, down)))


def frames_needed(frames: int, rate: int) -> int:
    """Frames at `rate` Hz that decide the first `frames` frames at 44.1 kHz."""
    margin = _ZERO_CROSSINGS * max(1.0, rate / SAMPLE_RATE) + 1
    return math.ceil(frames * rate / SAMPLE_RATE + margin)


@lru_cache(maxsize=4)
def _taps(factor: int) -> NDArray[np.float32]:
    taps = firwin(2 * _ZERO_CROSSINGS * factor + 1, 1 / factor, window=("kaiser", _KAISER_BETA))
    return taps.astype(np.float32)
