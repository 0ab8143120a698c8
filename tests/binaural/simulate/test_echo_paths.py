import numpy as np
import pytest

from binaural.simulate import echo_paths as echoes
from binaural.simulate.constants import FRAMES, SAMPLE_RATE, SPEED_OF_SOUND
from binaural.simulate.rooms import Box
from binaural.simulate.scene import Pose, sphere_directions

from .conftest import empty_room, panel_scene

FORWARD = Pose(np.array([0.0, 0.0, 1.0]), 0.0)


@pytest.mark.parametrize("distance", [0.8, 2.35, 7.1])
def test_echo_of_a_panel_ahead_is_due_after_twice_its_distance(distance):
    scene = panel_scene([distance, 0, 1], [-1, 0, 0], size=2.0)
    arrivals = echoes.specular(scene, FORWARD)
    assert arrivals.delay * SAMPLE_RATE == pytest.approx(2 * distance / 343 * 44100, abs=1e-6)
    response = echoes.impulse_response(scene, FORWARD, np.random.default_rng(0), [arrivals])
    ear = np.abs(response[0])
    onset = np.argmax(ear > 0.1 * ear.max())
    assert abs(onset - 2 * distance / SPEED_OF_SOUND * SAMPLE_RATE) <= 1


def test_large_panel_mirrors_what_its_absorption_and_scattering_leave():
    scene = panel_scene([2.0, 0, 1], [-1, 0, 0], size=60.0, absorption=0.3, scattering=0.25)
    arrivals = echoes.specular(scene, FORWARD)
    assert arrivals.amplitude[0] == pytest.approx(np.sqrt(0.7 * 0.75) / 4.0, rel=0.02)


def test_small_panels_mirror_less_and_from_where_they_are():
    amplitude = [
        echoes.specular(panel_scene([3.0, 0, 1], [-1, 0, 0], size), FORWARD).amplitude[0]
        for size in (0.06, 0.12)
    ]
    assert amplitude[0] < 0.3 * amplitude[1] < 0.5 / 6  # far below the Fresnel zone: as its area
    aside = echoes.specular(panel_scene([3.0, 1.0, 1], [-1, 0, 0], 1.9), FORWARD)
    assert aside.delay[0] * SPEED_OF_SOUND / 2 == pytest.approx(np.hypot(3.0, 0.05), rel=1e-6)


def test_panel_behind_another_is_silent():
    hidden = Box(np.array([4.0, 2.0, 1.5]), np.array([0.02, 0.5, 0.5]), 0.0)
    cover = Box(np.array([2.5, 2.0, 1.5]), np.array([0.1, 1.5, 1.5]), 0.0)
    pose = Pose(np.array([1.0, 2.0, 1.5]), 0.0)

    def echo_from_hidden(boxes):
        delay = echoes.specular(empty_room(boxes=boxes), pose).delay
        return np.any(np.abs(delay * SPEED_OF_SOUND / 2 - 2.99) < 1e-3)

    assert echo_from_hidden([hidden])
    assert not echo_from_hidden([hidden, cover])


def test_panel_on_the_left_is_earlier_and_louder_in_the_left_ear():
    scene = panel_scene([1.0, 1.5, 1], [-1, -1.5, 0], size=1.5)
    parts = [echoes.specular(scene, FORWARD)]
    left, right = echoes.impulse_response(scene, FORWARD, np.random.default_rng(0), parts)
    assert (left**2).sum() > 3 * (right**2).sum()
    onset = [np.argmax(np.abs(ear) > 0.1 * np.abs(ear).max()) for ear in (left, right)]
    assert 8 < onset[1] - onset[0] < 38


def test_diffuse_energy_of_an_endless_wall():
    # Integrating (1 - a) s cos(theta) / (pi d^2) over the half space before a wall at distance h, with
    # d = h / cos(theta) and the speaker's pattern (0.55 + 0.45 cos(theta))^2 when it faces the wall.
    absorption, scattering, h = 0.3, 0.5, 1.5
    scene = panel_scene([h, 0, 1], [-1, 0, 0], size=400.0, absorption=absorption, scattering=scattering)
    arrivals, escaped = echoes.diffuse(scene, FORWARD, np.random.default_rng(1), rays=20_000)
    a, b = 0.55, 0.45
    pattern = a * a / 4 + 2 * a * b / 5 + b * b / 6  # integral of cos^3 (a + b cos)^2 sin
    expected = 2 * (1 - absorption) * scattering / h**2 * pattern
    assert (arrivals.amplitude**2).sum() == pytest.approx(expected, rel=0.01)
    assert arrivals.delay.min() >= 2 * h / SPEED_OF_SOUND * (1 - 1e-6)
    assert abs(np.sign(arrivals.amplitude).mean()) < 0.05
    assert escaped == 1.0  # a single wall keeps no ray


def test_diffuse_energy_does_not_depend_on_the_number_of_rays(room, pose):
    energy = [
        np.mean(
            [
                (echoes.diffuse(room, pose, np.random.default_rng(s), n)[0].amplitude ** 2).sum()
                for s in range(4)
            ]
        )
        for n in (1000, 8000)
    ]
    assert energy[0] == pytest.approx(energy[1], rel=0.05)


def test_leak_comes_first_and_6_ms_into_the_file(room, pose):
    recording = np.abs(echoes.record(room, pose, np.random.default_rng(0)))
    quiet = recording[:, : int(0.9 * echoes.LEAD_IN * SAMPLE_RATE)].max()
    onset = np.argmax(recording > 10 * quiet, axis=1)
    assert np.all(np.abs(onset / SAMPLE_RATE - echoes.LEAD_IN) < 1e-3)


def test_recording_neither_clips_nor_drowns():
    # Nearer and barer than any pose allows.
    scene = empty_room((3.0, 3.0, 2.4), absorption=0.02, scattering=0.05)
    recording = echoes.record(scene, Pose(np.array([0.3, 0.3, 0.3]), np.pi), np.random.default_rng(0))
    assert recording.shape == (2, FRAMES)
    assert 0.3 < np.abs(recording).max() <= echoes.PEAK_LIMIT + 1e-6


def test_image_sources_agree_with_pyroomacoustics():
    pra = pytest.importorskip("pyroomacoustics")
    size, absorption = np.array([5.2, 4.1, 2.9]), [0.1, 0.15, 0.2, 0.25, 0.3, 0.35]
    scene = empty_room(size, scattering=0.0)
    scene.surfaces.absorption[:] = absorption
    pose = Pose(np.array([1.63, 1.37, 1.22]), 0.7)
    names = ["west", "east", "south", "north", "floor", "ceiling"]
    reference = pra.ShoeBox(
        size,
        fs=SAMPLE_RATE,
        materials={name: pra.Material(a) for name, a in zip(names, absorption, strict=True)},
        max_order=3,
    )
    reference.add_source(pose.position)
    reference.add_microphone(pose.position + 1e-9)
    reference.image_source_model()
    source = reference.sources[0]
    for order in (1, 2, 3):
        chosen = source.orders == order
        leg = source.images.T[chosen] - pose.position
        distance = np.linalg.norm(leg, axis=1)
        damping = source.damping[0][chosen] / distance
        mine = echoes.image_sources(scene, pose, (order,))
        # The reference has no speaker pattern: divide ours out through the emitted direction, which is
        # the arrival's, mirrored once per wall met along each axis.
        mirrors = (
            np.round(
                (
                    pose.position
                    + mine.direction
                    - np.where(
                        np.isclose((pose.position + mine.direction) % (2 * size), pose.position),
                        pose.position,
                        size - pose.position,
                    )
                )
                / size
            ).astype(int)
            % 2
        )
        emitted = mine.direction * np.where(mirrors, 1, -1)
        bare = mine.amplitude / echoes.directivity(pose, emitted)
        order_mine = np.lexsort((bare.round(9), mine.delay.round(9)))
        order_reference = np.lexsort((damping.round(9), (distance / SPEED_OF_SOUND).round(9)))
        assert len(bare) == chosen.sum() == {1: 6, 2: 18, 3: 38}[order]
        np.testing.assert_allclose(
            mine.delay[order_mine] * SPEED_OF_SOUND, distance[order_reference], rtol=1e-6
        )
        np.testing.assert_allclose(bare[order_mine], damping[order_reference], rtol=1e-5)


def test_first_order_images_are_the_mirror_reflections_of_the_walls():
    scene = empty_room(scattering=0.4)
    pose = Pose(np.array([1.63, 1.37, 1.22]), 0.7)
    images, mirrored = echoes.image_sources(scene, pose, (1,)), echoes.specular(scene, pose)
    np.testing.assert_allclose(np.sort(images.delay), np.sort(mirrored.delay), rtol=1e-6)
    by_image, by_mirror = np.argsort(images.delay), np.argsort(mirrored.delay)
    # The Fresnel ripple of a wall some metres wide stays within a fifth.
    np.testing.assert_allclose(images.amplitude[by_image], mirrored.amplitude[by_mirror], rtol=0.2)


def test_furniture_blocks_images():
    pose = Pose(np.array([1.0, 2.0, 1.2]), 0.0)
    wall = Box(np.array([2.5, 2.0, 1.5]), np.array([0.1, 3.9, 2.9]), 0.0)
    free, blocked = (echoes.image_sources(empty_room(boxes=b), pose) for b in ([], [wall]))
    assert len(free.delay) == 18 + 38
    # What is left never crosses the partition: at most one reflection along x, at the wall behind.
    assert len(blocked.delay) == (8 + 4) + (12 + 8)
    assert np.all(blocked.direction[:, 0] < 1.5)


def test_late_energy_decays_as_eyring_says(room):
    # Everything that is modelled, heard with one ear without air or filter: sum of squared amplitudes.
    pose = Pose(np.array([1.7, 1.4, 1.1]), 0.4)
    energy = np.zeros(FRAMES)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        rain, escaped = echoes.diffuse(room, pose, rng)
        for part in (
            rain,
            echoes.specular(room, pose),
            echoes.image_sources(room, pose),
            echoes.tail(room, pose, rng, escaped),
        ):
            index = np.round(part.delay * SAMPLE_RATE).astype(int)
            keep = index < FRAMES
            energy += np.bincount(index[keep], part.amplitude[keep] ** 2, FRAMES)
    decay = 10 * np.log10(np.cumsum(energy[::-1])[::-1])  # Schroeder's backward integration
    decay -= decay[0]
    start, stop = np.argmax(decay < -10), np.argmax(decay < -35)
    measured = 60 / ((decay[start] - decay[stop]) / (stop - start)) / SAMPLE_RATE
    volume, area = 5 * 4 * 3, 2 * (5 * 4 + 5 * 3 + 4 * 3)
    eyring = 24 * np.log(10) / SPEED_OF_SOUND * volume / (-area * np.log(1 - 0.2))
    assert measured == pytest.approx(eyring, rel=0.1)


def test_early_and_late_energy_meet():
    # The tail counts what more than three reflections bring: with all parts together, the energy of each
    # 5 ms follows the diffuse field's 4 pi c D^2 / V exp(-t / tau) from the first reflections on.
    scene = empty_room((6.0, 5.0, 3.0), absorption=0.25, scattering=0.5)
    bins = np.zeros(8)
    edges = np.arange(10, 51, 5) * 1e-3
    for seed in range(12):
        rng = np.random.default_rng(seed)
        position = rng.uniform([1, 1, 0.8], [5, 4, 2.2])
        pose = Pose(position, rng.uniform(-np.pi, np.pi))
        rain, escaped = echoes.diffuse(scene, pose, rng, 2000)
        for part in (
            rain,
            echoes.specular(scene, pose),
            echoes.image_sources(scene, pose),
            echoes.tail(scene, pose, rng, escaped),
        ):
            bins += np.histogram(part.delay, edges, weights=part.amplitude**2)[0] / 12
    middle = (edges[1:] + edges[:-1]) / 2
    rate = 4 * np.pi * SPEED_OF_SOUND / scene.volume * echoes.DIRECTIVITY_POWER
    diffuse_field = rate * 5e-3 * np.exp(SPEED_OF_SOUND * middle / scene.mean_free_path * np.log(1 - 0.25))
    assert np.all(np.abs(10 * np.log10(bins / diffuse_field)) < 3), 10 * np.log10(bins / diffuse_field)


def test_openings_shorten_the_tail(room, pose):
    def energy(escaped):
        return (echoes.tail(room, pose, np.random.default_rng(0), escaped).amplitude ** 2).sum()

    assert energy(0.3) < 0.5 * energy(0.0)


def test_mirrored_scene_swaps_the_ears():
    box = Box(np.array([3.4, 1.1, 0.9]), np.array([0.8, 0.5, 1.8]), 0.3)
    mirrored_box = Box(np.array([3.4, 4.0 - 1.1, 0.9]), np.array([0.8, 0.5, 1.8]), -0.3)
    pose, mirrored_pose = (Pose(np.array([1.5, y, 1.1]), h) for y, h in ((2.3, 0.2), (1.7, -0.2)))

    def parts(scene, pose):
        return [echoes.specular(scene, pose), echoes.image_sources(scene, pose)]

    scene, mirrored = empty_room(boxes=[box]), empty_room(boxes=[mirrored_box])
    rng = np.random.default_rng(0)
    here = echoes.impulse_response(scene, pose, rng, parts(scene, pose))
    there = echoes.impulse_response(mirrored, mirrored_pose, rng, parts(mirrored, mirrored_pose))
    np.testing.assert_allclose(here, there[::-1], atol=0.02 * np.abs(here).max())
    assert np.abs(here - there).max() > 0.3 * np.abs(here).max()  # and the ears do differ

    # Diffuse echoes agree as far as random signs let them: in energy per 2 ms and ear.
    def energy(scene, pose):
        rain, _ = echoes.diffuse(scene, pose, np.random.default_rng(1), 16_000)
        response = echoes.impulse_response(scene, pose, rng, [rain]).astype(np.float64)
        return (response[:, : 88 * 10].reshape(2, 10, 88) ** 2).sum(axis=2)

    level = 10 * np.log10(energy(scene, pose)[:, 3:] / energy(mirrored, mirrored_pose)[::-1, 3:])
    assert np.abs(level).max() < 3


def test_directivity_is_one_ahead_and_its_power_is_the_stated_mean():
    pose = Pose(np.zeros(3), 1.1)
    assert echoes.directivity(pose, pose.axes[:1])[0] == pytest.approx(1)
    power = (echoes.directivity(pose, sphere_directions(20_000)) ** 2).mean()
    assert power == pytest.approx(echoes.DIRECTIVITY_POWER, rel=1e-3)
