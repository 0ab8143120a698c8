"""The emitted signal and the equipment: the sweep, the rig's response, microphone noise."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from binaural.simulate.constants import FRAMES, SAMPLE_RATE
from binaural.simulate.scene import Floats

SWEEP_SECONDS = 3e-3
SWEEP_BAND = (20.0, 20_000.0)  # Hz
RESPONSE_TAPS = 512
_RIG_SEED = 1994  # one rig made all recordings, so its reflections are the same everywhere

# Speaker and microphones of the recording rig in dB, and the noise of its microphones in dB re full scale
# squared per Hz: read off bands of one BatVision V2 recording (its first 14 ms; its last 0.2 s).
_RIG_RESPONSE = {
    60: -12, 150: -3, 350: 0, 750: -3, 1500: 0, 2500: 0, 3500: 5, 4500: 9, 5500: 7, 7000: 2,
    9000: -3, 11_000: -9, 13_500: -7, 16_500: -8, 19_000: -17, 21_000: -45,
}  # fmt: skip
_NOISE_DENSITY = {
    30: -68, 100: -72, 350: -87, 750: -92, 1500: -97, 2500: -100, 3500: -92, 4500: -95, 5500: -99,
    7000: -109, 9000: -114, 12_000: -115, 22_050: -116,
}  # fmt: skip


def sweep() -> Floats:
    """The linear sweep, 20 Hz to 20 kHz in 3 ms, amplitude 1, with 5 % of raised cosine at both ends."""
    time = np.arange(round(SWEEP_SECONDS * SAMPLE_RATE)) / SAMPLE_RATE
    low, high = SWEEP_BAND
    signal = np.sin(2 * np.pi * (low * time + (high - low) / (2 * SWEEP_SECONDS) * time**2))
    edge = max(1, round(0.05 * len(time)))
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    signal[:edge] *= ramp
    signal[-edge:] *= ramp[::-1]
    return signal


def _table(decibels: dict[int, int], frequency: Floats) -> Floats:
    """Amplitude at each frequency, interpolated in dB over the logarithm of the frequency."""
    known = np.log(np.array(list(decibels)))
    level = np.interp(np.log(np.maximum(frequency, 1.0)), known, np.array(list(decibels.values()), float))
    return 10 ** (level / 20)


@cache
def pulse() -> Floats:
    """The sweep as the rig's speaker and microphones render it: minimum-phase response, peak 1."""
    size = 4096
    gain = _table(_RIG_RESPONSE, np.fft.rfftfreq(size, 1 / SAMPLE_RATE))
    # Minimum phase from the real cepstrum (Oppenheim and Schafer): fold the anti-causal half over.
    cepstrum = np.fft.irfft(np.log(gain))
    cepstrum[1 : size // 2] *= 2
    cepstrum[size // 2 + 1 :] = 0
    response = np.fft.irfft(np.exp(np.fft.rfft(cepstrum)))[:RESPONSE_TAPS]
    rendered = np.convolve(sweep(), response)
    return rendered / np.abs(rendered).max()


def microphone_noise(rng: np.random.Generator) -> NDArray[np.float32]:
    """Noise of both microphones, [2, FRAMES], full scale 1; its level varies by 3 dB (standard deviation)."""
    density = _table(_NOISE_DENSITY, np.fft.rfftfreq(FRAMES, 1 / SAMPLE_RATE))
    spectrum = np.fft.rfft(rng.normal(size=(2, FRAMES)), axis=1) * density * np.sqrt(SAMPLE_RATE / 2)
    level = 10 ** (rng.normal(0, 3) / 20)
    return (level * np.fft.irfft(spectrum, FRAMES, axis=1)).astype(np.float32)


@cache
def rig_reflections() -> tuple[Floats, Floats, Floats]:
    """Arrivals from the rig itself: the direct leak, then its stand, table and housings.

    Returns:
        delay [K] in seconds after the leak (which comes first, at 0), amplitude [K] relative to it, and
        direction [K, 3] in sensor axes.
    """
    rng = np.random.default_rng(_RIG_SEED)
    count = 30
    delay = np.sort(rng.uniform(0.2e-3, 6e-3, count))
    amplitude = rng.choice([-1.0, 1.0], count) * rng.uniform(0.2, 0.6, count) * np.exp(-delay / 1.5e-3)
    direction = rng.normal(size=(count, 3)) * [1.0, 1.0, 0.4] - [0.0, 0.0, 0.6]
    leak = np.array([[1.0, 0.0, -0.6]])
    direction = np.concatenate([leak, direction])
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return np.append(0.0, delay), np.append(1.0, amplitude), direction
