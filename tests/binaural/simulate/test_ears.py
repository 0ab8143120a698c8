import numpy as np
import pytest
from scipy.signal import fftconvolve

from binaural.simulate.ears import RESPONSES, kemar
from binaural.simulate.scene import sphere_directions


def heard(azimuth: float, elevation: float = 0.0, delay: int = 100) -> np.ndarray:
    a, e = np.deg2rad([azimuth, elevation])
    direction = np.array([[np.cos(e) * np.cos(a), np.cos(e) * np.sin(a), np.sin(e)]])
    return kemar().hear(np.array([delay]), np.ones(1), direction, 400)


def test_the_shipped_file_is_compact_and_needs_no_pickle():
    assert RESPONSES.stat().st_size < 400_000
    with np.load(RESPONSES, allow_pickle=False) as kemar_file:
        assert kemar_file["shape"].shape == (710, 96)
    assert RESPONSES.with_name("kemar.md").read_text().count("Gardner") >= 1


@pytest.mark.parametrize("azimuth", [30, 60, 90, 120])
def test_sound_from_the_left_is_earlier_and_louder_on_the_left(azimuth):
    left, right = heard(azimuth)
    onset = [np.argmax(np.abs(ear) > 0.1 * np.abs(ear).max()) for ear in (left, right)]
    assert 5 <= onset[1] - onset[0] <= 38  # 0.1 to 0.9 ms
    assert 10 * np.log10((left**2).sum() / (right**2).sum()) > 4


def test_ears_mirror_each_other():
    for azimuth, elevation in [(35, 0), (110, -30), (75, 40)]:
        np.testing.assert_array_equal(heard(azimuth, elevation), heard(-azimuth, elevation)[::-1])


def test_level_is_that_of_a_diffuse_field():
    directions = sphere_directions(2000)
    upper = directions[directions[:, 2] > -0.6]  # what was measured
    energy = [(kemar().hear(np.full(1, 50), np.ones(1), d[None], 250) ** 2).sum() for d in upper[::10]]
    assert np.mean(energy) / 2 == pytest.approx(1.0, abs=0.15)  # two ears


def test_summation_equals_one_convolution_per_arrival():
    rng = np.random.default_rng(0)
    count, frames = 50, 1500
    delay = rng.integers(20, 1490, count)
    amplitude = rng.normal(size=count)
    directions = sphere_directions(count, rng)
    nearest = kemar().nearest(directions)
    expected = np.zeros((2, frames))
    for k in range(count):
        for ear in range(2):
            impulse = np.zeros(frames)
            onset = delay[k] + kemar().onset[ear, nearest[k]]
            if onset < frames:
                impulse[onset] = amplitude[k]
            expected[ear] += fftconvolve(impulse, kemar().response[ear, nearest[k]])[:frames]
    got = kemar().hear(delay, amplitude, directions, frames)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_nearest_measured_direction_is_near():
    directions = sphere_directions(5000)
    directions = directions[directions[:, 2] > np.sin(np.deg2rad(-40))]
    chosen = kemar().directions[kemar().nearest(directions)]
    best = (directions @ kemar().directions.T).max(axis=1)
    reached = np.einsum("ni,ni->n", directions, chosen)
    assert np.all(np.arccos(np.clip(reached, -1, 1)) - np.arccos(np.clip(best, -1, 1)) < np.deg2rad(1.5))
