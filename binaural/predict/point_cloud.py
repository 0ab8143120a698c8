"""A depth map as points in space."""

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from binaural.camera_geometry import view_directions

_VERTEX = np.dtype([("position", "<f4", 3), ("colour", "u1", 4)])
_PROPERTIES = "".join(
    f"property {kind} {name}\n"
    for kind, names in (("float", ("x", "y", "z")), ("uchar", ("red", "green", "blue", "alpha")))
    for name in names
)


def point_cloud(depth: NDArray[np.float32]) -> NDArray[np.floating]:
    """Points [H · W, 3] in metres of a depth map [H, W], row by row from the upper left pixel.

    Axes: forward, left, up, from the ears. The pixels are those of the data sets' pinhole camera, 90 degrees
    wide and 58.7 degrees high, whatever H and W; depth is measured along the forward axis.
    """
    height, width = depth.shape
    return view_directions(width, height) * depth.reshape(-1, 1)


def to_ply(depth: NDArray[np.float32], farthest: float) -> bytes:
    """A PLY file (binary) of the points, coloured by depth from 0 to `farthest` metres."""
    vertices = np.empty(depth.size, _VERTEX)
    vertices["position"] = point_cloud(depth)
    vertices["colour"] = colormaps["viridis"](depth.reshape(-1) / farthest, bytes=True)
    header = f"ply\nformat binary_little_endian 1.0\nelement vertex {depth.size}\n{_PROPERTIES}end_header\n"
    return header.encode() + vertices.tobytes()
