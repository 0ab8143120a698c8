import bz2
import pickle
import zipfile

import numpy as np
import pytest

from binaural.simulate.extract_kemar import (
    FADE,
    FFT_SIZE,
    MEMBER,
    PRE_ONSET,
    TAPS,
    check_mirrored,
    compact,
    diffuse_field_equalise,
    read_measurement,
)


class Malice:
    def __reduce__(self):
        return (print, ("executed",))


def test_a_wheel_with_code_in_it_is_refused_unread(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "slab.whl", "w") as wheel:
        wheel.writestr(MEMBER, bz2.compress(pickle.dumps(Malice())))
    with pytest.raises(pickle.UnpicklingError, match="unexpected builtins.print"):
        read_measurement(tmp_path / "slab.whl")
    assert "executed" not in capsys.readouterr().out


def test_only_mirrored_ears_may_be_halved():
    angles = np.array([[0.0, 0], [30, 0], [330, 0], [30, 10], [330, 10]])
    responses = np.random.default_rng(0).normal(size=(5, 8, 2))
    for one, other in ((0, 0), (1, 2), (3, 4)):
        responses[other, :, 1] = responses[one, :, 0]
        responses[one, :, 1] = responses[other, :, 0]
    check_mirrored(responses, angles)
    responses[3, 2, 1] += 1e-6
    with pytest.raises(ValueError, match="the ears differ at azimuth 330"):
        check_mirrored(responses, angles)


def test_equalised_responses_have_a_flat_mean():
    rng = np.random.default_rng(0)
    colour = np.exp(-np.arange(40) / 6) * rng.normal(size=40)
    responses = np.stack([np.convolve(np.pad(rng.normal(size=20), (30, 0)), colour) for _ in range(50)])
    responses = np.pad(responses, ((0, 0), (0, 512 - responses.shape[1])))
    equalised = diffuse_field_equalise(responses)
    level = 10 * np.log10(np.mean(np.abs(np.fft.rfft(equalised, FFT_SIZE, axis=1)) ** 2, axis=0))
    frequency = np.fft.rfftfreq(FFT_SIZE, 1 / 44_100)
    assert np.abs(level[(frequency > 200) & (frequency < 17_000)]).max() < 0.5


def test_onset_and_shape_make_up_the_response():
    rng = np.random.default_rng(0)
    starts = np.array([30, 41, 55])
    responses = np.zeros((3, 200))
    for response, start in zip(responses, starts, strict=True):
        response[start : start + 70] = rng.choice([-1, 1], 70) * np.exp(-np.arange(70) / 20)
    onset, shape, scale = compact(responses)
    assert (onset.dtype, shape.dtype, shape.shape) == (np.uint8, np.int16, (3, TAPS))
    assert onset.tolist() == (starts - 30).tolist()
    kept = TAPS - FADE
    for response, start, mine in zip(responses, starts, shape, strict=True):
        first = start - PRE_ONSET
        np.testing.assert_allclose(scale * mine[:kept], response[first : first + kept], atol=1e-4)
