import numpy as np

from binaural.simulate.rooms import HEIGHT, SENSOR_HEIGHT, SIDE, random_pose, random_room
from binaural.simulate.scene import CLEARANCE, clearance


def test_random_rooms_and_poses_keep_their_bounds():
    for seed in range(25):
        rng = np.random.default_rng(seed)
        scene, boxes = random_room(rng)
        assert scene.room is not None
        assert np.all((SIDE[0] <= scene.room[:2]) & (scene.room[:2] <= SIDE[1]))
        assert HEIGHT[0] <= scene.room[2] <= HEIGHT[1]
        corners = scene.triangles.reshape(-1, 3)
        assert np.all(corners >= -1e-9)
        assert np.all(corners <= scene.room + 1e-9)
        pose = random_pose(scene, boxes, rng)
        if pose is not None:
            assert SENSOR_HEIGHT[0] <= pose.position[2] <= SENSOR_HEIGHT[1]
            assert clearance(scene, pose.position, rays=4096) > 0.8 * CLEARANCE
            assert not any(box.contains(pose.position) for box in boxes)


def test_box_contains_what_lies_inside_its_turned_outline(cupboard):
    along = np.array([np.cos(0.3), np.sin(0.3), 0.0])
    assert cupboard.contains(cupboard.centre + 0.39 * along)
    assert not cupboard.contains(cupboard.centre + 0.41 * along)
