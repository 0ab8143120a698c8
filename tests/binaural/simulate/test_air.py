import numpy as np

from binaural.simulate import echo_paths as echoes
from binaural.simulate.air import air_absorption
from binaural.simulate.constants import SAMPLE_RATE


def test_air_absorption_matches_the_tables_of_iso_9613():
    # Table 1 of the standard, 20 degrees, 50 %: dB per kilometre at 1, 2, 4, 8 kHz.
    frequency = np.array([1000.0, 2000.0, 4000.0, 8000.0])
    decibels = air_absorption(frequency) * 20 / np.log(10) * 1000
    np.testing.assert_allclose(decibels, [4.66, 9.86, 29.4, 104.0], rtol=0.03)


def test_treble_dies_before_bass(room, pose):
    rng = np.random.default_rng(0)
    response = echoes.impulse_response(room, pose, rng, [echoes.tail(room, pose, rng)])[0]
    frequency = np.fft.rfftfreq(2000, 1 / SAMPLE_RATE)

    def tilt(start):
        power = np.abs(np.fft.rfft(response[start : start + 2000])) ** 2
        bass, treble = (frequency > 300) & (frequency < 2000), (frequency > 8000) & (frequency < 16_000)
        return 10 * np.log10(power[treble].mean() / power[bass].mean())

    assert tilt(8000) < tilt(1000) - 4
