import numpy as np
import pytest
import trimesh

from binaural.simulate import echo_paths as echoes
from binaural.simulate.mesh import load_mesh, random_mesh_pose
from binaural.simulate.scene import CLEARANCE, Pose, clearance


@pytest.fixture
def glb(tmp_path):
    """A room 6 x 5 x 3 m with a cabinet, exported y-up as glTF wants it, seen from inside."""
    room = trimesh.creation.box(
        (6, 5, 3), transform=trimesh.transformations.translation_matrix([3, 2.5, 1.5])
    )
    cabinet = trimesh.creation.box(
        (1, 0.5, 2), transform=trimesh.transformations.translation_matrix([4.5, 1, 1.0])
    )
    scene = trimesh.util.concatenate([room, cabinet])
    scene.apply_transform(trimesh.transformations.rotation_matrix(-np.pi / 2, [1, 0, 0]))
    scene.export(tmp_path / "flat.glb")
    return tmp_path / "flat.glb"


def test_glb_is_turned_upright_and_split_into_its_flat_pieces(glb):
    scene = load_mesh(glb, np.random.default_rng(0))
    corners = scene.triangles.reshape(-1, 3)
    np.testing.assert_allclose(np.ptp(corners, axis=0), [6, 5, 3], atol=1e-6)
    assert len(scene.surfaces.absorption) == len(scene.rectangles.surface) == 12
    np.testing.assert_allclose(
        np.sort(scene.areas), np.sort([30, 30, 18, 18, 15, 15, 2, 2, 1, 1, 0.5, 0.5]), rtol=1e-6
    )
    assert scene.room is None


def test_mirror_echoes_of_a_mesh_room_are_those_of_its_walls(glb):
    scene = load_mesh(glb, np.random.default_rng(0))
    low = scene.triangles.min(axis=(0, 1))
    pose = Pose(low + np.array([2.0, 3.0, 1.2]), 0.3)
    distance = echoes.specular(scene, pose).delay * echoes.SPEED_OF_SOUND / 2
    for wall in (2.0, 4.0, 3.0, 2.0, 1.2, 1.8):
        assert np.abs(distance - wall).min() < 1e-3
    assert len(echoes.image_sources(scene, pose).delay) == 0


def test_poses_stand_free_above_a_floor(glb):
    scene = load_mesh(glb, np.random.default_rng(0))
    floor = scene.triangles[..., 2].min()
    for seed in range(10):
        pose = random_mesh_pose(scene, np.random.default_rng(seed))
        assert pose is not None
        assert clearance(scene, pose.position, 2048) > 0.8 * CLEARANCE
        # Above the floor, or above the cabinet (2 m high, which leaves room).
        assert any(0.3 <= pose.position[2] - floor - base <= 1.5 for base in (0.0, 2.0))


def test_records_in_a_mesh(glb):
    scene = load_mesh(glb, np.random.default_rng(0))
    pose = random_mesh_pose(scene, np.random.default_rng(1))
    recording = echoes.record(scene, pose, np.random.default_rng(2))
    late = recording[:, 4000:6000].std()
    assert np.isfinite(recording).all()
    assert late > 1.5 * recording[:, :250].std()  # it reverberates


def test_bad_meshes_are_refused(tmp_path):
    rng = np.random.default_rng(0)
    with pytest.raises(FileNotFoundError, match=r"none\.glb"):
        load_mesh(tmp_path / "none.glb", rng)
    (tmp_path / "broken.glb").write_bytes(b"not a mesh")
    with pytest.raises(ValueError, match=r"broken\.glb"):
        load_mesh(tmp_path / "broken.glb", rng)
    trimesh.creation.box((0.1, 0.1, 0.1)).export(tmp_path / "tiny.stl")
    with pytest.raises(ValueError, match=r"tiny\.stl.*metres"):
        load_mesh(tmp_path / "tiny.stl", rng)
    trimesh.PointCloud(rng.normal(size=(10, 3))).export(tmp_path / "points.ply")
    with pytest.raises(ValueError, match=r"points\.ply"):
        load_mesh(tmp_path / "points.ply", rng)
