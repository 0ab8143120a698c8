"""Depth maps: what is taken for millimetres, and what is refused."""

import re

import numpy as np
import pytest
import torch

from binaural.data.depth import read_depth


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((3, 4, 5), np.uint16), r"shape \(3, 4, 5\), expected a depth map \[H, W\]"),
        (np.zeros((0, 4), np.uint16), r"shape \(0, 4\), expected a depth map"),
        (np.zeros((4, 5), np.uint8), "type uint8, expected depth in millimetres"),
        (np.zeros((4, 5), bool), "type bool, expected integers or floats"),
        (np.zeros((4, 5), complex), "type complex128, expected integers or floats"),
        (np.full((4, 5), "near"), "expected integers or floats"),
        (np.full((4, 5), 3.5, np.float32), "median depth 3.5 mm; are these metres"),
    ],
)
def test_unusable_depth(tmp_path, array, message):
    path = tmp_path / "depth.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        read_depth(path, max_depth=10, image_size=4, interpolation="nearest")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("background", [1e10, 65535.0, 655.35, 1000.0, 65.504, 1e300, np.inf])
def test_metres_with_an_absurd_pixel_are_still_metres(tmp_path, background, interpolation):
    path = tmp_path / "depth.npy"
    stored = np.full((72, 128), 2.5, np.float64)
    stored[0, 0] = background
    np.save(path, stored)
    with pytest.raises(ValueError, match=r"depth\.npy: median depth 2\.5 mm; are these metres"):
        read_depth(path, max_depth=10, image_size=72, interpolation=interpolation)


def test_millimetres_with_a_few_small_pixels_are_millimetres(tmp_path):
    path = tmp_path / "depth.npy"
    stored = np.full((4, 5), 2500.0, np.float32)
    stored[0, [0, 1, 3]] = 1.5, np.nan, 1e10
    np.save(path, stored)
    depth = read_depth(path, max_depth=10, image_size=4, interpolation="nearest")
    assert depth.median() == 2.5
    assert depth.max() == 10


def test_a_depth_map_of_giant_size_is_refused_before_it_is_read(tmp_path):
    path = tmp_path / "depth.npy"
    np.lib.format.open_memmap(path, "w+", np.uint16, (100_000, 100_000))  # a sparse file
    with pytest.raises(ValueError, match=r"depth\.npy: shape \(100000, 100000\), expected .* at most"):
        read_depth(path, max_depth=10, image_size=4, interpolation="bilinear")


def test_any_order_and_type_of_millimetres(tmp_path):
    path = tmp_path / "depth.npy"
    stored = np.arange(1, 21).reshape(4, 5) * 100
    expected = torch.from_numpy(stored.astype(np.float32))[:, [0, 1, 3, 4]][None] / 1000
    for array in (
        stored.astype(np.uint16),
        stored.astype(">u2"),
        stored.astype(np.int32),
        stored.astype(np.float64),
        np.asfortranarray(stored.astype(np.float32)),
    ):
        np.save(path, array)
        depth = read_depth(path, max_depth=10, image_size=4, interpolation="nearest")
        assert torch.equal(depth, expected)
