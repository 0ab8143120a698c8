"""Resampling to 44.1 kHz: the sound stays, and memory stays bounded at any ratio of the rates."""

import tracemalloc

import numpy as np
import pytest

from binaural.data.resampling import frames_needed, resample


def tones(rate: int, seconds: float) -> np.ndarray:
    """Two tones [T, 2] below every Nyquist frequency here, faded in and out."""
    time = np.arange(round(seconds * rate)) / rate
    fade = np.sin(np.pi * time / seconds) ** 2
    tone = [0.5 * fade * np.sin(2 * np.pi * frequency * time) for frequency in (500, 2900)]
    return np.stack(tone, axis=1).astype(np.float32)


@pytest.mark.parametrize("rate", [8000, 16000, 44099, 44101, 48000, 96000, 100_003])
def test_tones_keep_time_and_level(rate):
    resampled = resample(tones(rate, 0.1), rate)
    expected = tones(44100, 0.1)
    assert resampled.dtype == np.float32
    count = min(len(resampled), len(expected))
    assert abs(len(resampled) - len(expected)) <= 1
    np.testing.assert_allclose(resampled[:count], expected[:count], rtol=0, atol=2e-3)


@pytest.mark.parametrize("rate", [44101, 383_999])
def test_memory_is_bounded_at_coprime_rates(rate):
    tracemalloc.start()
    resample(np.zeros((1000, 2), np.float32), rate)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e9


@pytest.mark.parametrize("rate", [8000, 44099, 96000])
def test_the_frames_that_are_read_decide_the_result(rate):
    noise = np.random.default_rng(0).standard_normal((rate // 10, 2)).astype(np.float32)
    whole = resample(noise, rate)[:1000]
    part = resample(noise[: frames_needed(1000, rate)], rate)[:1000]
    np.testing.assert_allclose(part, whole, rtol=0, atol=1e-6)
