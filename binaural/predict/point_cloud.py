"""A depth map as points in space."""

import numpy as np
import trimesh
from matplotlib import colormaps
from numpy.typing import NDArray

from binaural.camera_geometry import view_directions
from binaural.simulate.scene import Floats


def point_cloud(depth: NDArray[np.float32]) -> Floats:
    """Points [H · W, 3] in metres of a depth map [H, W], row by row from the upper left pixel.

    Axes: forward, left, up, from the ears. The pixels are those of the data sets' pinhole camera, 90 degrees
    wide and 58.7 degrees high, whatever H and W; depth is measured along the forward axis, as cameras do.
    """
    height, width = depth.shape
    return view_directions(width, height) * depth.reshape(-1, 1)


def to_ply(depth: NDArray[np.float32], farthest: float) -> bytes:
    """A PLY file (binary) of the points, coloured by depth from 0 to `farthest` metres."""
    colours = colormaps["viridis"](depth.reshape(-1) / farthest, bytes=True)
    return trimesh.PointCloud(point_cloud(depth), colours).export(file_type="ply")
