"""Losses that grow with frequency: the air on the way, and walls that absorb treble more than bass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from binaural.simulate.constants import SAMPLE_RATE, SPEED_OF_SOUND
from binaural.simulate.scene import Floats

TEMPERATURE = 293.15  # kelvin
HUMIDITY = 50.0  # per cent, relative
PRESSURE = 1.0  # atmospheres
REFERENCE = 1000.0  # Hz: the frequency at which the surfaces' absorption is given
ABSORPTION_SLOPE = 0.16  # absorption grows as frequency to this power
WINDOW = 1024  # samples


def air_absorption(frequency: Floats) -> Floats:
    """Attenuation of sound pressure by air in nepers per metre (ISO 9613-1), at 20 degrees and 50 %."""
    relative = TEMPERATURE / 293.15
    saturation = 10 ** (-6.8346 * (273.16 / TEMPERATURE) ** 1.261 + 4.6151)
    vapour = HUMIDITY * saturation / PRESSURE  # molar concentration of water, per cent
    oxygen = PRESSURE * (24 + 4.04e4 * vapour * (0.02 + vapour) / (0.391 + vapour))
    nitrogen = PRESSURE * relative**-0.5 * (9 + 280 * vapour * np.exp(-4.170 * (relative ** (-1 / 3) - 1)))
    return frequency**2 * (
        1.84e-11 / PRESSURE * relative**0.5
        + relative**-2.5
        * (
            0.01275 * np.exp(-2239.1 / TEMPERATURE) / (oxygen + frequency**2 / oxygen)
            + 0.1068 * np.exp(-3352.0 / TEMPERATURE) / (nitrogen + frequency**2 / nitrogen)
        )
    )


def attenuation(
    response: NDArray[np.float32], mean_absorption: float, mean_free_path: float
) -> NDArray[np.float32]:
    """Filter responses [2, N] by what sound of each age has lost more than at 1 kHz.

    What arrives after t has crossed c t of air and met c t / l walls. Overlapping windows of 23 ms are each
    filtered, with zero phase, by the losses at the age of their centre; the age is that of a two-way path.
    """
    frequency = np.fft.rfftfreq(2 * WINDOW, 1 / SAMPLE_RATE)
    walls = np.clip(mean_absorption * (np.maximum(frequency, 20) / REFERENCE) ** ABSORPTION_SLOPE, 0, 0.99)
    per_metre = (
        air_absorption(frequency)
        - air_absorption(np.array([REFERENCE]))
        - (0.5 * np.log((1 - walls) / (1 - mean_absorption)) / mean_free_path)
    )
    hop = WINDOW // 2
    frames = response.shape[1]
    count = frames // hop + 2
    padded = np.zeros((2, (count + 3) * hop), np.float32)
    padded[:, hop : hop + frames] = response
    window = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    starts = hop * np.arange(count)
    blocks = padded[:, starts[:, None] + np.arange(WINDOW)] * window
    age = starts / SAMPLE_RATE  # the centre of a block lies hop after its start, as the padding does
    gain = np.exp(-per_metre * SPEED_OF_SOUND * age[:, None]).astype(np.float32)
    # Padded by half a window on either side for the filter's two flanks.
    filtered = np.fft.irfft(np.fft.rfft(np.pad(blocks, ((0, 0), (0, 0), (hop, hop))), axis=2) * gain, axis=2)
    result = np.zeros((2, (count + 5) * hop), np.float32)
    for start, block in zip(starts, filtered.transpose(1, 0, 2), strict=True):
        result[:, start : start + 2 * WINDOW] += block
    return result[:, 2 * hop : 2 * hop + frames]
