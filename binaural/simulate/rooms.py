"""Random furnished rooms: a shoebox with boxes, pillars and panels, and a place to stand in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from binaural.simulate.scene import CLEARANCE, Floats, Pose, Rectangles, Scene, Surfaces, clearance

SIDE = (3.0, 12.0)  # metres, of the floor
HEIGHT = (2.4, 4.0)
SENSOR_HEIGHT = (0.3, 1.5)
VIEW_RAYS = 9  # rays per row of the coarse look that judges a pose
SEEN = (0.8, 10.0)  # metres: a view whose median distance lies outside shows nothing worth learning
MAX_TRIES = 200

# The four corners of a box's six faces, as signs along its axes; seen from outside counter-clockwise.
_FACES = np.array(
    [
        [[-1, -1, -1], [-1, -1, 1], [-1, 1, 1], [-1, 1, -1]],
        [[1, -1, -1], [1, 1, -1], [1, 1, 1], [1, -1, 1]],
        [[-1, -1, -1], [1, -1, -1], [1, -1, 1], [-1, -1, 1]],
        [[-1, 1, -1], [-1, 1, 1], [1, 1, 1], [1, 1, -1]],
        [[-1, -1, -1], [-1, 1, -1], [1, 1, -1], [1, -1, -1]],
        [[-1, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]],
    ],
    dtype=float,
)


@dataclass(frozen=True)
class Box:
    """A cuboid that stands upright: centre [3], size [3], turned by yaw radians about the vertical."""

    centre: Floats
    size: Floats
    yaw: float

    def corners(self) -> Floats:
        """Corners of the faces, [6, 4, 3]."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        turn = np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])
        return np.einsum("fci,ij->fcj", _FACES * self.size / 2, turn) + self.centre

    def contains(self, point: Floats) -> bool:
        """Whether a point [3] lies inside."""
        x, y, z = point - self.centre
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        local = np.array([cos * x + sin * y, cos * y - sin * x, z])
        return bool(np.all(np.abs(local) < self.size / 2))


def rectangles_from_corners(corners: Floats, surface: np.ndarray) -> Rectangles:
    """Rectangles with corners [M, 4, 3] in order round the edge, and their surface indices [M]."""
    edges = np.stack([corners[:, 1] - corners[:, 0], corners[:, 3] - corners[:, 0]], axis=1)
    length = np.linalg.norm(edges, axis=2)
    return Rectangles(surface, corners.mean(axis=1), edges / length[:, :, None], length / 2)


def room_scene(room: Floats, boxes: list[Box], surfaces: Surfaces, lamp: Floats) -> Scene:
    """A shoebox of size [3] with boxes in it; surfaces: the six walls, then one for each box."""
    quads = np.concatenate([Box(room / 2, room, 0.0).corners(), *(box.corners() for box in boxes)])
    surface = np.concatenate([np.arange(6), np.repeat(np.arange(6, 6 + len(boxes)), 6)])
    return Scene(
        triangles=np.stack([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]], axis=1).reshape(-1, 3, 3),
        triangle_surface=np.repeat(surface, 2),
        surfaces=surfaces,
        rectangles=rectangles_from_corners(quads, surface),
        volume=float(room.prod() - sum(box.size.prod() for box in boxes)),
        room=room,
        lamp=lamp,
    )


def random_room(rng: np.random.Generator) -> tuple[Scene, list[Box]]:
    """Draw a furnished room."""
    room = np.array([rng.uniform(*SIDE), rng.uniform(*SIDE), rng.uniform(*HEIGHT)])
    boxes = [_random_box(room, rng) for _ in range(rng.poisson(room[0] * room[1] / 8) + 2)]
    lamp = room * np.array([*rng.uniform(0.3, 0.7, 2), 0.95])
    return room_scene(room, boxes, _random_surfaces(len(boxes), rng), lamp), boxes


def _random_box(room: Floats, rng: np.random.Generator) -> Box:
    kind = rng.choice(["box", "pillar", "panel"], p=[0.6, 0.15, 0.25])
    if kind == "box":
        size = np.array([rng.uniform(0.4, 2.0), rng.uniform(0.3, 1.0), rng.uniform(0.4, 2.2)])
    elif kind == "pillar":
        size = np.array([*rng.uniform(0.25, 0.6, 2), room[2]])
    else:
        size = np.array([rng.uniform(0.8, 2.5), 0.04, rng.uniform(1.0, 2.2)])
    yaw = rng.uniform(0, np.pi) if rng.random() < 0.5 else np.pi / 2 * rng.integers(2)
    cos, sin = abs(np.cos(yaw)), abs(np.sin(yaw))
    reach = np.array([cos * size[0] + sin * size[1], sin * size[0] + cos * size[1]]) / 2
    # Half of the furniture stands against a wall; millimetres keep coplanar faces apart.
    place = rng.uniform(size=2)
    if rng.random() < 0.5:
        place[rng.integers(2)] = rng.integers(2)
    gap = 0.002
    centre = reach + gap + place * np.maximum(room[:2] - 2 * (reach + gap), 0)
    return Box(np.array([*centre, size[2] / 2 + (0 if kind == "pillar" else gap)]), size, float(yaw))


def _random_surfaces(boxes: int, rng: np.random.Generator) -> Surfaces:
    count = 6 + boxes
    absorption = rng.uniform(0.05, 0.35, count)
    scattering = rng.uniform(0.1, 0.6, count)
    soft = rng.random(count) < 0.2  # curtains, carpets, upholstery
    absorption[soft] = rng.uniform(0.4, 0.8, soft.sum())
    texture = rng.uniform(0.0, 1.0, count)
    texture[:6] *= 0.6  # walls are blanker than furniture
    tint = rng.uniform(0.25, 0.9, (count, 1))
    albedo = np.clip(tint * (1 + 0.35 * rng.normal(size=(count, 3))), 0.05, 0.95)
    return Surfaces(absorption, scattering, albedo, texture)


def random_pose(scene: Scene, boxes: list[Box], rng: np.random.Generator) -> Pose | None:
    """Draw a place in a room that touches nothing and looks at something; None when none is found."""
    assert scene.room is not None
    for _ in range(MAX_TRIES):
        low, high = np.full(2, CLEARANCE), scene.room[:2] - CLEARANCE
        position = np.array([*rng.uniform(low, high), rng.uniform(*SENSOR_HEIGHT)])
        pose = Pose(position, float(rng.uniform(-np.pi, np.pi)))
        if any(box.contains(position) for box in boxes):
            continue
        if clearance(scene, position) >= CLEARANCE and sees_something(scene, pose):
            return pose
    return None


def sees_something(scene: Scene, pose: Pose) -> bool:
    """Whether a coarse look ahead meets surfaces, mostly at a distance worth learning."""
    across = np.linspace(-0.9, 0.9, VIEW_RAYS)
    left, up = np.meshgrid(across, 0.5625 * across)
    directions = np.stack([np.ones_like(left), left, up], axis=-1).reshape(-1, 3)
    depth, _ = scene.cast(pose.position, pose.to_world(directions))
    return bool(np.isfinite(depth).mean() > 0.8 and SEEN[0] <= np.median(depth) <= SEEN[1])
