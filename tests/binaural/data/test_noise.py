"""Noise on the cells of a spectrogram varies as noise on the waveform does."""

import pytest
import torch

from binaural.data import LogSpectrogram, OfficialSpectrogram
from binaural.data.noise import CellNoise

DRAWS = 600


@pytest.fixture(params=["log", "log, several bins and windows a cell", "official"])
def front_end(request):
    if request.param == "official":
        return OfficialSpectrogram(32)
    return LogSpectrogram(2000, 64 if request.param == "log" else 16)


@pytest.fixture
def draws(front_end):
    """Decibels of noisy cells [draws, S, S], of cells and of waveforms, a loud beginning and a quiet end."""
    generator = torch.Generator().manual_seed(3)
    samples = getattr(front_end, "num_samples", 2000)
    level = torch.where(torch.arange(samples) < samples // 2, 1e-2, 1e-4)
    waveform = level * torch.randn(samples, generator=generator)
    amplitude = 1e-3
    noise = CellNoise(front_end.power, samples)
    torch.manual_seed(0)
    magnitude = front_end.power(waveform).sqrt()
    cells = torch.stack([noise.add(magnitude, amplitude) for _ in range(DRAWS)])
    waves = front_end.power(waveform + amplitude * torch.randn(DRAWS, samples))
    assert (cells >= 0).all()
    return 10 * torch.log10(cells), 10 * torch.log10(waves)


def test_mean_spread_and_quantiles_agree(draws):
    found, expected = draws
    size = found.shape[-1]
    for half in (slice(2, size // 2 - 2), slice(size // 2 + 2, size - 2)):
        a, b = found[:, :, half], expected[:, :, half]
        # 600 draws of a spread of at most 5.6 dB: each mean is known to 0.23 dB.
        assert (a.mean(0) - b.mean(0)).abs().mean() < 0.5
        assert (a.mean() - b.mean()).abs() < 0.1
        assert (a.std(0).mean() / b.std(0).mean()).item() == pytest.approx(1, abs=0.08)
        for quantile in (0.05, 0.95):
            error = a.quantile(quantile, 0).mean() - b.quantile(quantile, 0).mean()
            assert error.abs() < 0.1 * b.std(0).mean() + 0.1, quantile


def test_neighbouring_cells_hang_together_as_much(draws):
    def along(cells, axis):
        cells = cells[..., cells.shape[-1] // 2 + 2 :]  # where noise is louder than sound
        cells = cells - cells.mean(0)
        first, second = (cells.narrow(axis, start, cells.shape[axis] - 1) for start in (0, 1))
        return ((first * second).mean() / (first.square().mean() * second.square().mean()).sqrt()).item()

    found, expected = draws
    for axis in (1, 2):
        assert along(found, axis) == pytest.approx(along(expected, axis), abs=0.05)


def test_no_noise_changes_nothing(front_end):
    noise = CellNoise(front_end.power, getattr(front_end, "num_samples", 2000))
    magnitude = torch.rand(front_end.image_size, front_end.image_size)
    torch.testing.assert_close(noise.add(magnitude, 0.0), magnitude.square())
