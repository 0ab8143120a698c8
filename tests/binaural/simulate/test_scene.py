import numpy as np
import pytest

from binaural.simulate.scene import Pose, sphere_directions

from .conftest import empty_room


def test_rays_meet_walls_where_they_stand(room):
    axes = np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1.0]])
    distance, triangle = room.cast(np.array([1.0, 1.5, 1.2]), axes)
    np.testing.assert_allclose(distance, [4.0, 1.0, 2.5, 1.5, 1.8, 1.2], rtol=1e-6)
    assert room.triangle_surface[triangle].tolist() == [1, 0, 3, 2, 5, 4]


def test_statistics_of_a_furnished_room(cupboard):
    scene = empty_room(boxes=[cupboard])
    assert scene.volume == pytest.approx(5 * 4 * 3 - 0.8 * 1.2 * 2.0)
    sides = 2 * (0.8 * 1.2 + 0.8 * 2.0 + 1.2 * 2.0)
    assert scene.areas.sum() == pytest.approx(2 * (5 * 4 + 5 * 3 + 4 * 3) + sides)
    assert scene.areas[6] == pytest.approx(sides)


def test_visible_is_blocked_by_a_box_and_by_nothing_else(cupboard):
    scene = empty_room(boxes=[cupboard])
    starts = np.array([[1.0, 2.0, 1.0], [1.0, 2.0, 2.5], [1.0, 2.0, 1.0]])
    ends = np.array([[4.8, 2.0, 1.0], [4.8, 2.0, 2.5], [0.0, 2.0, 1.0]])
    assert scene.visible(starts, ends).tolist() == [False, True, True]


@pytest.mark.parametrize("seed", [None, 0])
def test_sphere_directions_are_unit_and_even(seed):
    rng = None if seed is None else np.random.default_rng(seed)
    directions = sphere_directions(4000, rng)
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(directions.T @ directions / 4000, np.eye(3) / 3, atol=1e-3)


def test_sensor_axes_turn_with_the_heading():
    pose = Pose(np.zeros(3), np.pi / 2)
    np.testing.assert_allclose(pose.to_sensor(np.array([[0.0, 1, 0]])), [[1, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(pose.to_sensor(np.array([[-1.0, 0, 0]])), [[0, 1, 0]], atol=1e-12)  # left
    directions = sphere_directions(20)
    np.testing.assert_allclose(pose.to_world(pose.to_sensor(directions)), directions, atol=1e-12)
