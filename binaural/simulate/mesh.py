"""A scanned or modelled place as a scene: a mesh file instead of random rooms."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from binaural.simulate.rooms import MAX_TRIES, SENSOR_HEIGHT, sees_something
from binaural.simulate.scene import CLEARANCE, Pose, Rectangles, Scene, Surfaces, clearance

MIN_REFLECTOR = 0.05  # square metres: smaller flat pieces make no mirror echo of their own


def load_mesh(path: Path, rng: np.random.Generator) -> Scene:
    """Read a mesh (GLB, OBJ, PLY, STL: what trimesh reads), in metres, as a scene with random materials.

    Every flat piece (facet) becomes a surface. glTF files (.glb, .gltf) are y-up by their specification and
    are turned; all others are taken as z-up.

    Raises:
        FileNotFoundError, ValueError: the file is missing, unreadable, empty, or smaller than a sensor
        with room round it (so probably not in metres).
    """
    import trimesh  # slow, and needed for mesh files alone

    if not path.is_file():
        raise FileNotFoundError(f"mesh {path}: no such file")
    try:
        mesh = trimesh.load_mesh(path)
    except Exception as error:
        raise ValueError(f"mesh {path}: not readable as a triangle mesh ({error})") from error
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.update_faces(mesh.nondegenerate_faces())
    if len(mesh.faces) == 0:
        raise ValueError(f"mesh {path}: expected triangles, found none")
    if path.suffix.lower() in {".glb", ".gltf"}:
        mesh.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, [1, 0, 0]))
    extent = mesh.extents
    if extent[:2].min() < 4 * CLEARANCE or extent[2] < SENSOR_HEIGHT[0] + CLEARANCE:
        raise ValueError(
            f"mesh {path}: {extent[0]:.3g} x {extent[1]:.3g} x {extent[2]:.3g} m has no room for a sensor; "
            "expected a place in metres, seen from inside"
        )

    # Facets are groups of coplanar neighbours; every triangle in none of them is a surface of its own.
    surface = np.full(len(mesh.faces), -1)
    for index, facet in enumerate(mesh.facets):
        surface[facet] = index
    alone = surface < 0
    surface[alone] = len(mesh.facets) + np.arange(alone.sum())
    count = int(surface.max()) + 1
    surfaces = Surfaces(
        absorption=rng.uniform(0.05, 0.4, count),
        scattering=rng.uniform(0.1, 0.6, count),
        albedo=np.clip(rng.uniform(0.25, 0.9, (count, 1)) * rng.uniform(0.8, 1.2, (count, 3)), 0.05, 0.95),
        texture=rng.uniform(0.0, 1.0, count),
    )
    triangles = np.asarray(mesh.triangles, dtype=np.float64)
    # A mesh with openings encloses no volume of its own; its convex hull bounds the air.
    volume = abs(mesh.volume) if mesh.is_watertight else mesh.convex_hull.volume
    low, high = mesh.bounds
    return Scene(
        triangles=triangles,
        triangle_surface=surface,
        surfaces=surfaces,
        rectangles=_reflectors(triangles, surface),
        volume=float(volume),
        room=None,
        lamp=np.array([*(low + high)[:2] / 2, low[2] + 0.9 * (high[2] - low[2])]),
    )


def _reflectors(triangles: np.ndarray, surface: np.ndarray) -> Rectangles:
    """The rectangle round every flat piece that is large enough to mirror sound."""
    edges = triangles[:, 1:] - triangles[:, :1]
    area = 0.5 * np.linalg.norm(np.cross(edges[:, 0], edges[:, 1]), axis=1)
    kept, centre, sides, half = [], [], [], []
    order = np.argsort(surface, kind="stable")
    for members in np.split(order, np.flatnonzero(np.diff(surface[order])) + 1):
        if area[members].sum() < MIN_REFLECTOR:
            continue
        points = triangles[members].reshape(-1, 3)
        # Aligned with the longest edge of the piece.
        along = np.diff(triangles[members][:, [0, 1, 2, 0]], axis=1).reshape(-1, 3)
        first = along[np.argmax(np.linalg.norm(along, axis=1))]
        first = first / np.linalg.norm(first)
        normal = np.cross(edges[members, 0], edges[members, 1])[np.argmax(area[members])]
        second = np.cross(normal / np.linalg.norm(normal), first)
        axes = np.stack([first, second])
        spread = np.einsum("ni,ki->nk", points, axes)
        low, high = spread.min(axis=0), spread.max(axis=0)
        plane = points[0] - np.einsum("k,ki->i", spread[0], axes)
        kept.append(surface[members[0]])
        centre.append(plane + np.einsum("k,ki->i", (low + high) / 2, axes))
        sides.append(axes)
        half.append((high - low) / 2)
    if not kept:
        return Rectangles(np.empty(0, np.int64), np.empty((0, 3)), np.empty((0, 2, 3)), np.empty((0, 2)))
    return Rectangles(np.array(kept), np.stack(centre), np.stack(sides), np.stack(half))


def random_mesh_pose(scene: Scene, rng: np.random.Generator) -> Pose | None:
    """Draw a place in a mesh, above a floor, that touches nothing and looks at something; or None."""
    low, high = scene.triangles.min(axis=(0, 1)), scene.triangles.max(axis=(0, 1))
    down = np.array([[0.0, 0.0, -1.0]])
    for _ in range(MAX_TRIES):
        start = rng.uniform(low, high)
        drop, _ = scene.cast(start, down)
        if not np.isfinite(drop[0]):
            continue
        position = start + down[0] * drop[0] + [0, 0, rng.uniform(*SENSOR_HEIGHT)]
        pose = Pose(position, float(rng.uniform(-np.pi, np.pi)))
        # What lies between the floor and the start is free; above it, the sensor may be in another storey.
        free = position[2] <= start[2] or bool(scene.visible(start[None], position[None])[0])
        if free and clearance(scene, position) >= CLEARANCE and sees_something(scene, pose):
            return pose
    return None
