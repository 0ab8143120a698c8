"""Depth maps: from millimetres as a camera stored them to square maps in metres."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from binaural.data.arrays import read_array

MAX_PIXELS = 1 << 26
"""Pixels of the largest depth map that is read."""

METRES_BELOW = 100
"""A map whose median is below this is not in millimetres: no camera measures depths under 10 cm alone."""


def read_depth(path: Path, *, max_depth: float, image_size: int, interpolation: str) -> Tensor:
    """A depth map [1, image_size, image_size] in metres, float32, 0 = no measurement.

    Depths beyond `max_depth` become `max_depth`.

    `interpolation` is `"nearest"`, which takes the pixel at the centre of each cell, so that every depth was
    measured and no measurement stays none; or `"bilinear"` as in BatVision's official code, which blends with
    the zeros (without antialiasing, torchvision's default for tensors at the time of that code).

    Raises as `open_depth` and `millimetres`.
    """
    return to_metres(
        open_depth(path), path, max_depth=max_depth, image_size=image_size, interpolation=interpolation
    )


def open_depth(path: Path) -> np.ndarray:
    """A depth map [H, W] as it is stored, memory-mapped.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no `.npy` array, not 2-D, empty, of more than `MAX_PIXELS`, or of a type that
            cannot hold millimetres.
    """
    stored = read_array(path)
    if stored.ndim != 2 or not 0 < stored.size <= MAX_PIXELS:
        raise ValueError(
            f"{path}: shape {stored.shape}, expected a depth map [H, W], at most {MAX_PIXELS} pixels"
        )
    if stored.dtype.itemsize < 2:
        raise ValueError(f"{path}: type {stored.dtype}, expected depth in millimetres as uint16 or float32")
    return stored


def millimetres(stored: np.ndarray, path: Path) -> Tensor:
    """The measurements of a depth map [H, W] in millimetres, float32, 0 = no measurement.

    The map holds millimetres, of an integer type (BatVision V2: uint16) or floating (BatVision V1, and V2 as
    some re-save it); zeros, negatives, NaN and ±infinity are no measurements. The median decides whether
    these are millimetres: a single pixel may hold anything, such as a background of 1e10.

    Raises:
        ValueError: at least half of the measurements are below `METRES_BELOW`, so they must be metres; the
            message names `path`.
    """
    with np.errstate(over="ignore"):
        depth = torch.from_numpy(stored.astype(np.float32))
    valid = torch.isfinite(depth) & (depth > 0)
    depth = torch.where(valid, depth, 0.0)
    count = int(valid.sum())
    if count and 2 * int((valid & (depth < METRES_BELOW)).sum()) >= count:
        raise ValueError(
            f"{path}: median depth {float(depth[valid].median()):g} mm; are these metres? Expected "
            "millimetres: multiply by 1000 and save as uint16"
        )
    return depth


def to_metres(
    stored: np.ndarray, path: Path, *, max_depth: float, image_size: int, interpolation: str
) -> Tensor:
    """A stored depth map as `read_depth` returns it; `path` is named in errors."""
    if interpolation == "nearest":
        rows = _cell_centres(stored.shape[0], image_size)
        columns = _cell_centres(stored.shape[1], image_size)
        stored = stored[rows][:, columns]
    depth = (millimetres(stored, path) / 1000).clamp(max=max_depth)[None]
    if interpolation == "bilinear":
        depth = F.interpolate(depth[None], size=(image_size, image_size), mode="bilinear")[0]
    return depth


def _cell_centres(size: int, cells: int) -> np.ndarray:
    """Index of the pixel at the centre of each of `cells` equal cells of a line of `size` pixels."""
    return ((2 * np.arange(cells) + 1) * size) // (2 * cells)
