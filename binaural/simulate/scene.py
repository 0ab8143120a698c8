"""A scene: surfaces that reflect sound and light, as a triangle mesh that rays are cast at by embree.

World axes: x and y horizontal, z up, metres. A room lies in [0, size]. Sensor axes: x forward, y left,
z up; a pose is a position and a heading (yaw, counter-clockwise seen from above).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from embreex.rtcore_scene import EmbreeScene

Floats = NDArray[np.floating]
Integers = NDArray[np.int64]

CLEARANCE = 0.35  # metres: a sensor nearer to anything than this touches it


@dataclass(frozen=True)
class Pose:
    """Where the sensor stands and looks: position [3] in metres, heading in radians."""

    position: Floats
    heading: float

    @property
    def axes(self) -> Floats:
        """[3, 3]: the sensor's forward, left and up directions in world axes, one per row."""
        cos, sin = np.cos(self.heading), np.sin(self.heading)
        return np.array([[cos, sin, 0.0], [-sin, cos, 0.0], [0.0, 0.0, 1.0]])

    def to_sensor(self, directions: Floats) -> Floats:
        """Turn world directions [N, 3] into sensor axes."""
        return np.einsum("nj,ij->ni", directions, self.axes)

    def to_world(self, directions: Floats) -> Floats:
        """Turn sensor directions [N, 3] into world axes."""
        return np.einsum("ni,ij->nj", directions, self.axes)


@dataclass(frozen=True)
class Surfaces:
    """Materials of the S flat pieces of a scene, one entry each.

    absorption [S]: share of the sound energy that is lost at about 1 kHz. scattering [S]: share of the
    reflected energy that leaves in all directions (Lambert). albedo [S, 3]: colour. texture [S]: contrast
    of the pattern, from 0 (blank wall) to 1, which tells whether a stereo camera finds something to match.
    """

    absorption: Floats
    scattering: Floats
    albedo: Floats
    texture: Floats


@dataclass(frozen=True)
class Rectangles:
    """Flat reflectors of a scene, M of them.

    surface [M] index; centre [M, 3]; sides [M, 2, 3] unit vectors along the edges; half [M, 2] half the
    edge lengths; normal [M, 3].
    """

    surface: Integers
    centre: Floats
    sides: Floats
    half: Floats

    @property
    def normal(self) -> Floats:
        return np.cross(self.sides[:, 0], self.sides[:, 1])


@dataclass(frozen=True)
class Scene:
    """A triangle mesh with materials.

    triangles [F, 3, 3] corner positions; triangle_surface [F] index into surfaces; surfaces; rectangles;
    volume of the air in cubic metres; room [3] is the size of a shoebox whose six walls are surfaces 0 to
    5 (x = 0, x = size, y = 0, ...), or None where the scene is no shoebox; lamp [3] position of the light.
    """

    triangles: Floats
    triangle_surface: Integers
    surfaces: Surfaces
    rectangles: Rectangles
    volume: float
    room: Floats | None
    lamp: Floats

    @cached_property
    def normals(self) -> Floats:
        """Unit normal of every triangle, [F, 3]."""
        normal = np.cross(
            self.triangles[:, 1] - self.triangles[:, 0], self.triangles[:, 2] - self.triangles[:, 0]
        )
        return normal / np.linalg.norm(normal, axis=1, keepdims=True)

    @cached_property
    def areas(self) -> Floats:
        """Area of every surface, [S], square metres."""
        edges = self.triangles[:, 1:] - self.triangles[:, :1]
        area = 0.5 * np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
        return np.asarray(np.bincount(self.triangle_surface, area, len(self.surfaces.absorption)), float)

    @property
    def mean_free_path(self) -> float:
        """Mean distance between reflections in a diffuse field, 4 V / S (Kuttruff, Room Acoustics)."""
        return float(4 * self.volume / self.areas.sum())

    @property
    def mean_absorption(self) -> float:
        """Absorption averaged over the area."""
        return float(np.average(self.surfaces.absorption, weights=self.areas))

    @property
    def mean_scattering(self) -> float:
        """Scattering averaged over the area."""
        return float(np.average(self.surfaces.scattering, weights=self.areas))

    @cached_property
    def _embree(self) -> EmbreeScene:
        # Here, so that training and prediction, which cast no rays, work where embree has no wheel.
        from embreex.mesh_construction import TriangleMesh
        from embreex.rtcore_scene import EmbreeScene

        embree = EmbreeScene()
        TriangleMesh(embree, self.triangles.astype(np.float32))
        return embree

    def cast(self, origins: Floats, directions: Floats) -> tuple[Floats, Integers]:
        """Cast rays from origins [N, 3] (or one origin [3]) along directions [N, 3].

        Returns:
            distance [N] to the first hit in units of the direction's length, infinite where there is none,
            and the triangle hit [N], -1 where there is none.
        """
        starts = np.ascontiguousarray(np.broadcast_to(origins, directions.shape), dtype=np.float32)
        hit = self._embree.run(starts, directions.astype(np.float32), query="INTERSECT", output=True)
        triangle = hit["primID"].astype(np.int64)
        return np.where(triangle < 0, np.inf, hit["tfar"].astype(np.float64)), triangle

    def visible(self, starts: Floats, ends: Floats) -> NDArray[np.bool_]:
        """Whether nothing stands between starts and ends, [N, 3] each or one of them [3].

        Both may lie on surfaces.
        """
        leg = ends - starts
        length = np.linalg.norm(leg, axis=1)
        slack = 1e-3  # metres, so that the surfaces at both ends do not count
        direction = leg / np.maximum(length, 1e-9)[:, None]
        distance, _ = self.cast(starts + slack * direction, direction)
        return distance > length - 2 * slack


def sphere_directions(count: int, rng: np.random.Generator | None = None) -> Floats:
    """Evenly spread unit vectors [count, 3]: a Fibonacci lattice, turned at random when rng is given."""
    index = np.arange(count) + 0.5
    height = 1 - 2 * index / count
    turn = index * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - height**2)
    lattice = np.stack([radius * np.cos(turn), radius * np.sin(turn), height], axis=1)
    if rng is None:
        return lattice
    # The three rows of an orthonormalised Gaussian matrix are a uniformly random rotation.
    first, second = rng.normal(size=(2, 3))
    first /= np.linalg.norm(first)
    second -= first * (first * second).sum()
    second /= np.linalg.norm(second)
    return np.einsum("ni,ij->nj", lattice, np.stack([first, second, np.cross(first, second)]))


def clearance(scene: Scene, position: Floats, rays: int = 256) -> float:
    """Distance in metres from a position to the nearest thing around it, as seen along rays."""
    distance, _ = scene.cast(position, sphere_directions(rays))
    return float(distance.min())
