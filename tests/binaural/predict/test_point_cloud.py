import io

import numpy as np
import pytest
import trimesh

from binaural.predict.point_cloud import point_cloud, to_ply


@pytest.mark.parametrize("shape", [(64, 64), (36, 64), (3, 5)])
def test_a_wall_straight_ahead_is_a_plane_as_wide_as_the_camera_sees(shape):
    height, width = shape
    points = point_cloud(np.full(shape, 3.0, np.float32)).reshape(height, width, 3)
    np.testing.assert_allclose(points[..., 0], 3.0)
    # 90 degrees: 6 m wide at 3 m; pixel centres are half a pixel from the edge.
    np.testing.assert_allclose(points[:, 0, 1], 3 * (1 - 1 / width))
    np.testing.assert_allclose(points[:, -1, 1], -3 * (1 - 1 / width))
    top = 3 * np.tan(np.radians(58.7 / 2))
    np.testing.assert_allclose(points[0, :, 2], top * (1 - 1 / height), rtol=2e-3)
    np.testing.assert_allclose(points[-1, :, 2], -top * (1 - 1 / height), rtol=2e-3)


def test_a_floor_is_level():
    """Depth of a floor 1.2 m below the ears, worked out from the angle of each row."""
    height, width = 32, 32
    tangent = np.tan(np.radians(58.7 / 2)) * (2 * np.arange(16, 32) + 1 - height) / height
    depth = np.repeat((1.2 / tangent)[:, None], width, axis=1).astype(np.float32)
    full = np.concatenate((np.full((16, width), 5.0, np.float32), depth))
    below = point_cloud(full).reshape(height, width, 3)[16:]
    np.testing.assert_allclose(below[..., 2], -1.2, rtol=2e-3)


def test_ply_is_read_back():
    depth = np.random.default_rng(0).uniform(1, 5, (6, 8)).astype(np.float32)
    cloud = trimesh.load(io.BytesIO(to_ply(depth, 5.0)), file_type="ply")
    np.testing.assert_allclose(cloud.vertices, point_cloud(depth), rtol=1e-6)
    assert len(np.unique(cloud.colors, axis=0)) > 10
