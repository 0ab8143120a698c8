import numpy as np
import pytest
from scipy.signal import hilbert

from binaural.simulate.constants import FRAMES, SAMPLE_RATE
from binaural.simulate.source import microphone_noise, pulse, rig_reflections, sweep


def test_sweep_rises_linearly_from_20_hz_to_20_khz_in_3_ms():
    signal = sweep()
    assert len(signal) == round(3e-3 * SAMPLE_RATE)
    assert 0.9 < np.abs(signal).max() <= 1
    assert np.abs(signal[[0, -1]]).max() < 0.1  # no click at either end
    # The analytic signal's phase, away from both ends where it is not defined well, is that of the sweep.
    time = np.arange(len(signal)) / SAMPLE_RATE
    phase = 2 * np.pi * (20 * time + (20_000 - 20) / (2 * 3e-3) * time**2) - np.pi / 2
    error = np.angle(hilbert(signal) * np.exp(-1j * phase))[20:-20]
    assert np.abs(error).max() < 0.15


def test_pulse_has_the_rigs_spectrum():
    played, sent = (np.abs(np.fft.rfft(signal, 4096)) for signal in (pulse(), sweep()))
    frequency = np.fft.rfftfreq(4096, 1 / SAMPLE_RATE)
    level = 20 * np.log10(played / sent)
    level -= level[np.argmin(np.abs(frequency - 2000))]
    for hertz, decibels in ((4500, 9), (7000, 2), (11_000, -9), (16_500, -8)):  # as read off the recording
        assert level[np.argmin(np.abs(frequency - hertz))] == pytest.approx(decibels, abs=1)
    assert np.abs(pulse()).max() == pytest.approx(1)


def test_noise_differs_between_the_ears_and_has_its_density():
    rng = np.random.default_rng(0)
    noise = np.stack([microphone_noise(rng) for _ in range(40)])
    assert noise.shape == (40, 2, FRAMES)
    assert abs(np.corrcoef(noise[:, 0].ravel(), noise[:, 1].ravel())[0, 1]) < 0.05
    power = 2 * np.mean(np.abs(np.fft.rfft(noise)) ** 2, axis=(0, 1)) / SAMPLE_RATE / FRAMES
    frequency = np.fft.rfftfreq(FRAMES, 1 / SAMPLE_RATE)
    for hertz, decibels in ((350, -87), (2500, -100), (12_000, -115)):
        near = np.abs(frequency / hertz - 1) < 0.02
        # The mean of a level that varies by 3 dB lies above its median.
        assert 10 * np.log10(power[near].mean()) == pytest.approx(decibels + 1, abs=1.5)


def test_the_leak_comes_first_and_is_the_strongest():
    delay, amplitude, direction = rig_reflections()
    assert delay[0] == 0
    assert np.all(np.diff(delay) > 0)
    assert amplitude[0] == 1 > np.abs(amplitude[1:]).max()
    np.testing.assert_allclose(np.linalg.norm(direction, axis=1), 1)
