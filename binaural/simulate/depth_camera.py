"""The camera beside the ears: a depth map with a stereo camera's flaws, and a colour picture.

Pinhole, 90 degrees wide and 58.7 degrees high (16:9), looking along the sensor's forward axis from the
position of the speaker and the ears.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, zoom

from binaural.camera_geometry import view_directions
from binaural.simulate.scene import Floats, Integers, Pose, Scene

DEPTH_RANGE = (0.3, 16.0)  # metres that the camera measures
DEPTH_NOISE = 1.5e-3  # standard deviation at 1 m; grows with the square, as disparity errors do
GRAZING = 0.12  # cosine of the incidence below which matching begins to fail
BLANK = 0.42  # texture below which patches of a surface fail
JUMP = 0.06  # relative depth step that makes an occlusion shadow


def look(scene: Scene, pose: Pose, width: int, height: int) -> tuple[Floats, Integers]:
    """True z-depth in metres and the triangle hit, [height, width] each; infinite and -1 where none is."""
    directions = pose.to_world(view_directions(width, height))
    depth, triangle = scene.cast(pose.position, directions)
    return depth.reshape(height, width), triangle.reshape(height, width)


def measured_depth(
    scene: Scene, pose: Pose, depth: Floats, triangle: Integers, rng: np.random.Generator
) -> NDArray[np.uint16]:
    """The depth map a stereo camera would give: [height, width], millimetres, 0 where it has none.

    Missing are, as on real recordings: bands along the border (in the view of one lens only), the
    surroundings of depth steps (occlusion), surfaces at a grazing angle, patches of surfaces without
    texture, and depths out of range. About a fifth of the pixels on average.
    """
    height, width = depth.shape
    hit = triangle >= 0
    missing = ~hit | (depth < DEPTH_RANGE[0]) | (depth > DEPTH_RANGE[1])

    share = rng.uniform([0.01, 0.01, 0, 0], [0.05, 0.08, 0.04, 0.02])
    left, right, top, bottom = np.round(share * [width, width, height, height]).astype(int)
    missing[:, :left] = missing[:, width - right :] = True
    missing[:top] = missing[height - bottom :] = True

    # A step to the right or left hides from one lens a strip as wide as the disparity changes; matching
    # windows widen it and add one above and below.
    near = np.where(hit, 1 / np.maximum(depth, 0.1), 0.0)
    step = np.zeros_like(missing)
    step[:, 1:] |= np.abs(np.diff(near, axis=1)) > JUMP * near[:, 1:]
    step[1:] |= np.abs(np.diff(near, axis=0)) > JUMP * near[1:]
    wide = max(1, round(width * rng.uniform(0.004, 0.012)))
    missing |= binary_dilation(step, np.ones((2 * (wide // 2) + 1, 2 * wide + 1), bool))

    # One smooth random field makes failures patchy, as they are where a surface is hard to match.
    patchiness = _patches(height, width, rng)
    face = np.where(hit, triangle, 0)
    surface = scene.triangle_surface[face]
    directions = pose.to_world(view_directions(width, height))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    cosine = np.abs(np.einsum("ni,ni->n", directions, scene.normals[face.ravel()])).reshape(height, width)
    missing |= cosine < GRAZING * (0.5 + patchiness)
    missing |= scene.surfaces.texture[surface] + patchiness < BLANK

    measured = np.where(missing, 0.0, depth)
    measured += DEPTH_NOISE * measured**2 * rng.normal(size=depth.shape)
    return np.round(np.clip(measured, 0, DEPTH_RANGE[1]) * 1000).astype(np.uint16)


def picture(
    scene: Scene, pose: Pose, depth: Floats, triangle: Integers, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Colour picture [height, width, 3]: Lambert shading by one lamp, patterned surfaces, sensor noise."""
    height, width = depth.shape
    hit = (triangle >= 0).ravel()
    face = np.where(hit, triangle.ravel(), 0)
    surface = scene.triangle_surface[face]
    reach = np.where(hit, depth.ravel(), 1.0)
    point = pose.position + pose.to_world(view_directions(width, height)) * reach[:, None]

    to_lamp = scene.lamp - point
    lamp_distance = np.linalg.norm(to_lamp, axis=1)
    incidence = np.abs(np.einsum("ni,ni->n", to_lamp, scene.normals[face])) / np.maximum(lamp_distance, 1e-6)
    light = 0.35 + 0.9 * incidence / (1 + (lamp_distance / 3) ** 2)
    # Stripes along all three axes give each surface a pattern as strong as its texture.
    phase = 2 * np.pi * point * (2.0 + surface[:, None] % 5)
    pattern = 1 + 0.4 * scene.surfaces.texture[surface] * np.sin(phase).prod(axis=1)
    colour = scene.surfaces.albedo[surface] * (light * pattern)[:, None]
    colour = np.where(hit[:, None], colour, 0.7)
    colour += 0.01 * rng.normal(size=colour.shape)
    return np.round(255 * np.clip(colour, 0, 1) ** (1 / 2.2)).astype(np.uint8).reshape(height, width, 3)


def _patches(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Smooth random field in [0, 1], [height, width], the same patches at every resolution."""
    coarse = rng.uniform(size=(10, 17))
    field = zoom(coarse, (height / 10, width / 17), order=1, grid_mode=True, mode="nearest")
    return field[:height, :width]
