"""The pinhole camera of the data sets: 90 degrees wide and 58.7 degrees high (16:9), looking forward."""

import numpy as np
from numpy.typing import NDArray

ASPECT = 16 / 9
"""Width of the picture over its height."""


def view_directions(width: int, height: int) -> NDArray[np.floating]:
    """Directions through the pixel centres in sensor axes, [height * width, 3], forward component 1.

    The length of such a ray to its hit, in units of the direction, is the z-depth.
    """
    left = 1 - (2 * np.arange(width) + 1) / width  # tan(90 / 2) = 1
    up = (1 - (2 * np.arange(height) + 1) / height) / ASPECT
    grid_up, grid_left = np.meshgrid(up, left, indexing="ij")
    return np.stack([np.ones_like(grid_up), grid_left, grid_up], axis=-1).reshape(-1, 3)
