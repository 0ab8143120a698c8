"""Depth maps: from millimetres as a camera stored them to square maps in metres."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from binaural.data.files import read_array


def read_depth(path: Path, *, max_depth: float, image_size: int, interpolation: str) -> Tensor:
    """A depth map [1, image_size, image_size] in metres, float32, 0 = no measurement.

    The file holds millimetres [H, W], of an integer type (BatVision V2: uint16) or floating (BatVision V1,
    and V2 as some re-save it); zeros, negatives, NaN and ±infinity are no measurements. Depths beyond
    `max_depth` become `max_depth`.

    `interpolation` is `"nearest"`, which takes the pixel at the centre of each cell, so that every depth was
    measured and no measurement stays none; or `"bilinear"` as in BatVision's official code, which blends with
    the zeros (without antialiasing, torchvision's default for tensors at the time of that code).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no `.npy` array, not 2-D, empty, of a type that cannot hold millimetres, or
            holds floats so small that they must be metres.
    """
    stored = read_array(path)
    if stored.ndim != 2 or stored.size == 0:
        raise ValueError(f"{path}: shape {stored.shape}, expected a depth map [H, W]")
    if stored.dtype.itemsize < 2:
        raise ValueError(f"{path}: type {stored.dtype}, expected depth in millimetres as uint16 or float32")
    if interpolation == "nearest":
        rows = _cell_centres(stored.shape[0], image_size)
        columns = _cell_centres(stored.shape[1], image_size)
        stored = stored[rows][:, columns]
    depth = torch.from_numpy(stored.astype(np.float32))
    depth = torch.where(torch.isfinite(depth) & (depth > 0), depth, 0.0)
    if np.issubdtype(stored.dtype, np.floating) and 0 < depth.max() < 100:
        raise ValueError(
            f"{path}: largest depth {float(depth.max()):g} mm; are these metres? Expected millimetres"
        )
    depth = (depth / 1000).clamp(max=max_depth)[None]
    if interpolation == "bilinear":
        depth = F.interpolate(depth[None], size=(image_size, image_size), mode="bilinear")[0]
    return depth


def _cell_centres(size: int, cells: int) -> np.ndarray:
    """Index of the pixel at the centre of each of `cells` equal cells of a line of `size` pixels."""
    return ((2 * np.arange(cells) + 1) * size) // (2 * cells)
