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
        (np.full((4, 5), 3.5, np.float32), "largest depth 3.5 mm; are these metres"),
    ],
)
def test_unusable_depth(tmp_path, array, message):
    path = tmp_path / "depth.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + message):
        read_depth(path, max_depth=10, image_size=4, interpolation="nearest")


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
