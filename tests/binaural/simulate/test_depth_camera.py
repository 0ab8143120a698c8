import numpy as np
import pytest

from binaural.camera_geometry import view_directions
from binaural.simulate import depth_camera as camera
from binaural.simulate.rooms import random_pose, random_room
from binaural.simulate.scene import Pose


def test_field_of_view_is_90_by_58_7_degrees():
    directions = view_directions(1280, 720).reshape(720, 1280, 3)
    left = np.rad2deg(np.arctan(directions[0, :, 1]))
    up = np.rad2deg(np.arctan(directions[:, 0, 2]))
    assert left[0] > left[-1]  # the left of the picture is the sensor's left
    assert up[0] > up[-1]
    assert left[0] - left[-1] == pytest.approx(90.0, abs=0.1)
    assert up[0] - up[-1] == pytest.approx(58.7, abs=0.1)


def test_depth_is_the_distance_along_the_axis(room):
    depth, triangle = camera.look(room, Pose(np.array([1.0, 2.0, 1.5]), 0.0), 64, 36)
    wall = room.triangle_surface[triangle] == 1
    assert wall.mean() > 0.3
    np.testing.assert_allclose(depth[wall], 4.0, rtol=1e-5)  # the whole wall, not only its middle
    # The bottom row looks 29 degrees down at the floor.
    assert depth[-1, 32] == pytest.approx(1.5 / np.abs(view_directions(64, 36)[-1, 2]), rel=1e-5)


def test_valid_pixels_measure_the_wall_and_the_rest_is_missing(room):
    pose, rng = Pose(np.array([1.0, 2.0, 1.5]), 0.0), np.random.default_rng(0)
    depth, triangle = camera.look(room, pose, 128, 72)
    measured = camera.measured_depth(room, pose, depth, triangle, rng)
    assert measured.dtype == np.uint16
    assert measured.shape == (72, 128)
    valid = measured > 0
    error = measured[valid] / 1000 - depth[valid]
    assert np.abs(error).max() < 6 * camera.DEPTH_NOISE * depth.max() ** 2 + 1e-3
    assert error.std() > 1e-3
    assert not valid[:, 0].any()
    assert not valid[:, -1].any()


def test_blank_surfaces_lose_patches_and_textured_ones_do_not(room):
    pose = Pose(np.array([1.0, 2.0, 1.5]), 0.0)
    depth, triangle = camera.look(room, pose, 128, 72)
    inner = np.s_[10:-10, 15:-15]

    def missing(texture):
        room.surfaces.texture[:] = texture
        rng = np.random.default_rng(3)
        return (camera.measured_depth(room, pose, depth, triangle, rng)[inner] == 0).mean()

    assert missing(0.0) > missing(1.0) + 0.2


def test_out_of_range_is_missing(room):
    pose = Pose(np.array([2.0, 2.0, 1.5]), 0.0)
    depth, triangle = camera.look(room, pose, 32, 18)
    far = camera.measured_depth(room, pose, depth + 20, triangle, np.random.default_rng(0))
    near = camera.measured_depth(room, pose, depth * 0.02, triangle, np.random.default_rng(0))
    assert not far.any()
    assert not near.any()


def test_about_a_fifth_is_missing_and_depth_stays_correlated_with_the_truth():
    shares = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        scene, boxes = random_room(rng)
        pose = random_pose(scene, boxes, rng)
        if pose is None:
            continue
        depth, triangle = camera.look(scene, pose, 128, 72)
        shares.append((camera.measured_depth(scene, pose, depth, triangle, rng) == 0).mean())
    assert np.mean(shares) == pytest.approx(0.22, abs=0.05)
    assert np.std(shares) > 0.03


def test_missing_share_does_not_depend_on_the_resolution():
    rng = np.random.default_rng(5)
    scene, boxes = random_room(rng)
    pose = random_pose(scene, boxes, rng)
    shares = []
    for width in (128, 640):
        depth, triangle = camera.look(scene, pose, width, width * 9 // 16)
        measured = camera.measured_depth(scene, pose, depth, triangle, np.random.default_rng(7))
        shares.append((measured == 0).mean())
    assert shares[0] == pytest.approx(shares[1], abs=0.05)


def test_picture_shows_the_albedo_of_what_is_there(room):
    pose = Pose(np.array([1.0, 2.0, 1.5]), 0.0)
    depth, triangle = camera.look(room, pose, 64, 36)
    room.surfaces.albedo[1] = [0.8, 0.2, 0.1]
    picture = camera.picture(room, pose, depth, triangle, np.random.default_rng(0))
    assert picture.shape == (36, 64, 3)
    assert picture.dtype == np.uint8
    red, green, blue = picture[room.triangle_surface[triangle] == 1].mean(axis=0)
    assert red > 1.3 * green > 1.3 * blue
    assert picture.std() > 5
