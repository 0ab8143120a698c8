"""The spectrograms: scale, framing, batches."""

import math

import pytest
import torch
import torchaudio

from binaural.data import LogSpectrogram, OfficialSpectrogram


@pytest.mark.parametrize(("duration", "size"), [(2841, 64), (7984, 256), (2841, 256), (2646, 16), (5000, 96)])
def test_columns_cover_the_duration_exactly(duration, size):
    spectrogram = LogSpectrogram(duration, size)
    assert duration <= spectrogram.num_samples < duration + size * (spectrogram.grid.windows_per_column + 1)
    column = spectrogram.num_samples // size
    for j in (1, size // 3, size - 2):
        waveform = torch.zeros(2, spectrogram.num_samples)
        waveform[:, j * column + column // 2] = 0.5
        out = spectrogram(waveform)
        assert out.shape == (2, size, size)
        levels = out[0].mean(0)
        # Short columns are all within one window: the energy is symmetric about the impulse.
        centre = (levels * torch.arange(size)).sum() / levels.sum()
        assert centre == pytest.approx(j, abs=0.75)


def test_scale_is_decibels_of_full_scale():
    spectrogram = LogSpectrogram(2841, 64)
    time = torch.arange(spectrogram.num_samples) / 44100
    frequency = 44100 / 128 * 10
    tone = torch.sin(2 * math.pi * frequency * time)
    out = spectrogram(torch.stack([tone, 0.1 * tone]))
    assert int(out[0, :, 30].argmax()) == 9  # row 0 is bin 1
    loud, soft = 90 * (out[:, 9, 30] - 1)
    assert loud == pytest.approx(-6.02, abs=0.1)
    assert loud - soft == pytest.approx(20, abs=0.1)
    silence = spectrogram(torch.zeros(2, 100))
    torch.testing.assert_close(silence, torch.zeros(2, 64, 64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [16, 64, 96])
def test_log_equals_its_definition(size):
    """Mean power of Hann windows by a plain Fourier transform, in decibels."""
    spectrogram = LogSpectrogram(1500, size)
    waveform = 0.1 * torch.randn(2, spectrogram.num_samples, generator=torch.manual_seed(0))
    window = torch.hann_window(64, dtype=torch.float64)
    k, group = spectrogram.grid.windows_per_column, spectrogram.bins_per_row
    bins = size * group
    hop = spectrogram.num_samples // (size * k)
    padded = torch.nn.functional.pad(waveform.double(), (32, 32))
    frames = padded.unfold(-1, 64, hop)[:, : size * k] * window  # [2, frames, 64]
    power = (torch.fft.rfft(frames, n=2 * bins).abs() / window.sum()) ** 2
    power = power[..., 1:].reshape(2, size, k, size, group).mean((2, 4)).mT
    expected = (10 * torch.log10(power + 1e-9) + 90) / 90
    torch.testing.assert_close(spectrogram(waveform).double(), expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", [lambda: LogSpectrogram(2841, 64), lambda: OfficialSpectrogram(64)])
def test_batches_and_ears_are_independent(make):
    spectrogram = make()
    waveform = 0.1 * torch.randn(3, 4, 2, 2880, generator=torch.manual_seed(0))
    out = spectrogram(waveform)
    assert out.shape == (3, 4, 2, 64, 64)
    torch.testing.assert_close(out[1, 2], spectrogram(waveform[1, 2]))
    torch.testing.assert_close(out.flip(2), spectrogram(waveform.flip(2)))


def test_official_keeps_the_ratio_between_the_ears():
    ear = torch.randn(7782, generator=torch.manual_seed(0))
    out = OfficialSpectrogram(256)(torch.stack([ear, 0.25 * ear]))
    torch.testing.assert_close(out[1], 0.25 * out[0])
    full = torchaudio.transforms.Spectrogram(n_fft=512, win_length=64, hop_length=16, power=1.0)(ear)
    assert full.shape == (257, 487)


@pytest.mark.parametrize("options", [(0, 64), (100, 0)])
def test_wrong_sizes(options):
    with pytest.raises(ValueError, match="must be positive"):
        LogSpectrogram(*options)
    with pytest.raises(ValueError, match="must be positive"):
        OfficialSpectrogram(0)
