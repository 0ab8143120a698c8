"""Controls: ears muted and swapped; and intervals."""

import numpy as np
import pytest
import torch
from torch import nn

from binaural.data import LogSpectrogram, OfficialSpectrogram
from binaural.evaluate.intervals import Bootstrap
from binaural.evaluate.per_image import MIRRORING, correlation, measure
from binaural.evaluate.protocol import Protocol
from binaural.metrics import depth_metrics

CPU = torch.device("cpu")
PROTOCOL = Protocol("simulated", "x", "test", max_depth=10.0, image_size=16)


class Hearing(nn.Module):
    """Depth that follows the left ear on the left half and the right ear on the right half."""

    def forward(self, x):
        left, right = x[:, :1], x[:, 1:]
        return torch.cat((left[..., :8], right[..., 8:]), dim=-1)


class Deaf(nn.Module):
    """A prediction that does not depend on the ears, larger on the left."""

    def forward(self, x):
        return torch.linspace(5, 1, 16).expand(x.shape[0], 1, 16, 16) + 0 * x[:, :1]


@pytest.fixture
def sample():
    generator = torch.Generator().manual_seed(0)
    ears = 1 + 8 * torch.rand(3, 2, 16, 1, generator=generator).expand(-1, -1, -1, 16)
    return ears, 1 + 8 * torch.rand(3, 1, 16, 16, generator=generator)


def test_a_network_that_tells_left_from_right_mirrors(sample):
    measured = measure(Hearing(), [sample], PROTOCOL, CPU, controls=True)
    mirrored, original, difference, _ = measured.mirroring.T
    np.testing.assert_allclose(mirrored, 1, atol=1e-6)
    np.testing.assert_allclose(difference, 1, atol=1e-6)
    assert (original < 0.9).all()
    # Seen in a mirror with the ears swapped, its errors are the same.
    np.testing.assert_allclose(measured.controls["swapped"], measured.metrics)


def test_a_network_that_does_not_listen_does_not_mirror(sample):
    mirrored, original, difference, _ = measure(Deaf(), [sample], PROTOCOL, CPU, controls=True).mirroring.T
    np.testing.assert_allclose(original, 1)
    np.testing.assert_allclose(mirrored, -1)
    np.testing.assert_allclose(difference, -1)
    assert len(MIRRORING) == 4


def test_left_and_right_are_compared_with_the_truth_where_both_were_measured(sample):
    """A prediction that is right has 1, its mirror image -1, whatever stands where one half has no truth."""
    ears, depth = sample
    truth = depth.clone()
    truth[:, :, :4, :3] = 0
    truth[:, :, 5, 12] = torch.nan

    class Sees(nn.Module):
        def __init__(self, seen):
            super().__init__()
            self.seen = seen.clone()
            self.seen[:, :, :4, :3] = 9  # without truth, here and in the mirror
            self.seen[:, :, :4, 13:] = 1

        def forward(self, x):
            return self.seen

    for seen, expected in ((depth, 1), (depth.flip(-1), -1)):
        measured = measure(Sees(seen), [(ears, truth)], PROTOCOL, CPU, controls=True)
        np.testing.assert_allclose(measured.mirroring[:, MIRRORING.index("left_right_truth")], expected)


def test_muted_is_silence_in_the_ear_that_is_named(sample):
    ears, depth = sample
    measured = measure(Hearing(), [sample], PROTOCOL, CPU, controls=True)
    prediction = Hearing()(ears)
    prediction[..., :8] = 0
    np.testing.assert_allclose(measured.controls["left_muted"], depth_metrics(prediction, depth))
    prediction = Hearing()(ears)
    prediction[..., 8:] = 0
    np.testing.assert_allclose(measured.controls["right_muted"], depth_metrics(prediction, depth))


@pytest.mark.parametrize("spectrogram", [LogSpectrogram(2000, 32), OfficialSpectrogram(32)])
def test_silence_is_zero_in_a_spectrogram(spectrogram):
    assert spectrogram(torch.zeros(2, 2000)).abs().max() < 1e-6


def test_images_without_a_pixel_are_counted_and_left_out(sample):
    ears, depth = sample
    depth = depth.clone()
    depth[1] = 0
    measured = measure(Hearing(), [(ears, depth)], PROTOCOL, CPU)
    assert measured.counted.tolist() == [True, False, True]
    assert np.isnan(measured.metrics[1]).all()
    assert not measured.controls
    assert len(measured.mirroring) == 0


def test_predictions_are_brought_to_the_truths_size_and_range(sample):
    ears, _ = sample
    depth = torch.full((3, 1, 4, 4), 2.0)
    protocol = Protocol("simulated", "x", "test", max_depth=2.0, image_size=4)
    measured = measure(Hearing(), [(ears.clamp(min=3), depth)], protocol, CPU)
    np.testing.assert_allclose(measured.metrics[:, 0], 0)


def test_correlation_is_numpys():
    a, b = torch.randn(2, 1, 5, 7), torch.randn(2, 1, 5, 7)
    for found, x, y in zip(correlation(a, b), a, b, strict=True):
        assert float(found) == pytest.approx(np.corrcoef(x.flatten(), y.flatten())[0, 1], rel=1e-4)
    assert torch.isnan(correlation(torch.ones(1, 4), torch.randn(1, 4)))


def test_the_interval_covers_as_often_as_it_says():
    """200 samples of 60 normal numbers: a 90 % interval misses the mean in about 20 of them."""
    rng = np.random.default_rng(0)
    bootstrap = Bootstrap(400, confidence=0.9)
    _, low, high = bootstrap.means(rng.normal(3.0, 2.0, (60, 200)))
    assert 8 <= np.sum((low > 3) | (high < 3)) <= 40
    assert (high - low).mean() == pytest.approx(2 * 1.645 * 2.0 / np.sqrt(60), rel=0.1)


def test_too_few_images_have_no_interval():
    bootstrap = Bootstrap(10)
    mean, low, high = bootstrap.means(np.array([[1.0, 2.0]]))
    assert mean.tolist() == [1, 2]
    assert np.isnan([*low, *high]).all()
    assert np.isnan(bootstrap.means(np.empty((0, 2)))).all()
    mean, low, high = bootstrap.means(np.array([[1.0, np.nan], [2.0, 1.0]]))
    assert np.isnan([mean[1], low[1], high[1]]).all()
    assert low[0] <= mean[0] <= high[0]


@pytest.mark.parametrize("wrong", [{"resamples": 0}, {"confidence": 1.0}])
def test_wrong_bootstrap(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Bootstrap(**wrong)
