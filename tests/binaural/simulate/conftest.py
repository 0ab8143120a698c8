"""Scenes small enough to know everything about."""

import numpy as np
import pytest

from binaural.simulate.rooms import Box, rectangles_from_corners, room_scene
from binaural.simulate.scene import Pose, Scene, Surfaces


def uniform_surfaces(count: int, absorption: float = 0.2, scattering: float = 0.3) -> Surfaces:
    return Surfaces(
        np.full(count, absorption), np.full(count, scattering), np.full((count, 3), 0.5), np.ones(count)
    )


def panel_scene(centre, facing, size=1.0, absorption=0.0, scattering=0.0) -> Scene:
    """One square panel in empty space, its normal along facing (horizontal)."""
    normal = np.asarray(facing, float) / np.linalg.norm(facing)
    up = np.array([0.0, 0.0, 1.0])
    across = np.cross(up, normal)
    corners = np.asarray(centre) + size / 2 * np.array([-across - up, across - up, across + up, -across + up])
    return Scene(
        triangles=corners[[[0, 1, 2], [0, 2, 3]]],
        triangle_surface=np.zeros(2, np.int64),
        surfaces=uniform_surfaces(1, absorption, scattering),
        rectangles=rectangles_from_corners(corners[None], np.zeros(1, np.int64)),
        volume=100.0,
        room=None,
        lamp=np.array([0.0, 0.0, 2.0]),
    )


def empty_room(size=(5.0, 4.0, 3.0), absorption=0.2, scattering=0.3, boxes=()) -> Scene:
    return room_scene(
        np.array(size, float),
        list(boxes),
        uniform_surfaces(6 + len(boxes), absorption, scattering),
        np.array([2.0, 2.0, 2.8]),
    )


@pytest.fixture
def room() -> Scene:
    return empty_room()


@pytest.fixture
def pose() -> Pose:
    return Pose(np.array([1.7, 1.4, 1.1]), 0.4)


@pytest.fixture
def cupboard() -> Box:
    return Box(np.array([3.5, 2.0, 1.0]), np.array([0.8, 1.2, 2.0]), 0.3)
