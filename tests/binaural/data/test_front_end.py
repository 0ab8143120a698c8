"""What front ends make of sounds whose direction and time are known."""

import math

import pytest
import torch

from binaural.data import FrontEnd, LogSpectrogram
from binaural.data.front_end import Correlogram, InterauralPhase, WaveformWindows, make_front_end

SIZE, DURATION = 64, 3355  # 12 m: 53 samples to a column, padded to 56


def delayed(source: torch.Tensor, samples: int) -> torch.Tensor:
    return torch.cat((torch.zeros(samples), source))[: len(source)]


@pytest.mark.parametrize("lag", [-30, -7, 0, 12, 40])
def test_the_correlogram_shows_lag_and_time(lag):
    """A click that reaches the right ear `lag` samples later than the left: a peak in its row and column."""
    front_end = Correlogram(DURATION, SIZE)
    at = 20 * front_end.grid.column + front_end.grid.column // 2
    click = torch.zeros(DURATION)
    click[at - abs(lag) // 2 : at - abs(lag) // 2 + 3] = torch.tensor([1.0, -0.5, 0.2])
    ears = (click, delayed(click, lag)) if lag >= 0 else (delayed(click, -lag), click)
    shown = front_end(torch.stack(ears))[0]
    row, column = divmod(int(shown[:, 20].argmax()) * SIZE + 20, SIZE)
    expected = (lag / 44.1 + 1) / 2 * SIZE  # rows share -1 to 1 ms
    assert abs(row + 0.5 - expected) <= 0.75
    assert column == 20
    assert shown[row, 20] > 0.8
    assert shown[:, 40].abs().max() == 0  # nothing is heard there


def test_alike_ears_correlate_fully_at_no_lag():
    shown = Correlogram(DURATION, SIZE)(torch.randn(DURATION).expand(2, -1))
    assert shown.shape == (1, SIZE, SIZE)
    middle = shown[0, SIZE // 2 - 1 : SIZE // 2 + 1, : SIZE - 6]  # what follows the recording is silent
    assert middle.min() > 0.75  # the lags nearest to 0 are a third of a sample
    assert shown.max() <= 1 + 1e-5


@pytest.mark.parametrize("size", [32, 128])
def test_lags_are_at_least_as_dense_as_samples(size):
    front_end = Correlogram(DURATION, size)
    lags = size * front_end.lags_per_row
    assert 2 * 44.1 / lags <= 1
    assert front_end(torch.randn(2, DURATION)).shape == (1, size, size)


@pytest.mark.parametrize("lag", [2, -3])
def test_the_phase_of_a_tone_is_its_lag(lag):
    row = 20
    frequency = (row + 1) / 128  # of the bin in row 20, cycles a sample
    time = torch.arange(DURATION)
    tone = torch.stack([torch.sin(2 * math.pi * frequency * (time - late)) for late in (0, lag)])
    sine, cosine = InterauralPhase(DURATION, SIZE)(tone)[:, row, 10:50]
    phase = torch.tensor(2 * math.pi * frequency * lag)
    torch.testing.assert_close(sine, phase.sin().expand(40), atol=1e-3, rtol=0)
    torch.testing.assert_close(cosine, phase.cos().expand(40), atol=1e-3, rtol=0)


def test_every_sample_is_in_its_window():
    front_end = WaveformWindows(DURATION, SIZE)
    column = front_end.grid.column
    waveform = torch.zeros(2, DURATION)
    waveform[1, 5 * column + 20] = -0.1
    shown = front_end(waveform)
    assert shown[1].nonzero().tolist() == [[20, 5]]
    expected = -math.log1p(front_end.MU * 0.1) / math.log1p(front_end.MU)
    assert float(shown[1, 20, 5]) == pytest.approx(expected, rel=1e-5)
    waveform[1] = 0
    waveform[0, 6 * column] = 1.0
    # 64 rows of 56 samples: windows overlap in 8
    assert front_end(waveform)[0].nonzero().tolist() == [[0, 6], [column, 5]]


def test_windows_that_would_lose_samples_are_refused():
    with pytest.raises(ValueError, match="waveform: a column of .* image_size = 32"):
        WaveformWindows(DURATION, 32)


def test_features_stand_one_after_the_other():
    waveform = torch.randn(3, 2, DURATION)
    together = FrontEnd(("ipd", "magnitude"), DURATION, SIZE)(waveform)
    assert together.shape == (3, 4, SIZE, SIZE)
    assert torch.equal(together[:, 2:], LogSpectrogram(DURATION, SIZE)(waveform))
    assert torch.equal(together[:, :2], InterauralPhase(DURATION, SIZE)(waveform))


def test_the_official_preprocessing_knows_the_magnitude_alone():
    with pytest.raises(ValueError, match="magnitude alone, got magnitude, ipd"):
        make_front_end(("magnitude", "ipd"), DURATION, SIZE, "official")
