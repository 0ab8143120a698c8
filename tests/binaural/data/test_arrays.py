"""`.npy` files: damaged headers end in one error that names the file."""

import struct

import numpy as np
import pytest

from binaural.data.arrays import read_array

HEADER = "{'descr': '<u2', 'fortran_order': False, 'shape': %s, }"


def with_header(text: str, content: bytes = bytes(64)) -> bytes:
    header = text.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + content


@pytest.mark.parametrize(
    "content",
    [
        with_header(HEADER[:-1] % "(4, 4)"),
        with_header(HEADER % "(9999999999999999999999, 1)"),
        with_header(HEADER % "(100000, 100000)"),
        with_header(HEADER % "(-1, 8)"),
        with_header(HEADER % "(True, 8)"),
        with_header(HEADER % "(0, 9999999999999999999999)"),
        with_header("-" * 5000 + "1"),
        with_header("__import__('os').abort()"),
        with_header(HEADER.replace("<u2", "|O") % "(1, 1)"),
        b"\x93NUMPY\x09\x00" + bytes(100),
        b"PK\x03\x04" + bytes(50),
        b"\x93NUM",
        b"",
    ],
    ids=range(13),
)
def test_damaged_headers(tmp_path, content):
    path = tmp_path / "depth.npy"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"depth\.npy: not a readable \.npy array") as error:
        read_array(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_saves_is_read(tmp_path, order):
    path = tmp_path / "a.npy"
    stored = np.asarray(np.arange(12, dtype=">i4").reshape(3, 4), order=order)
    np.save(path, stored)
    np.testing.assert_array_equal(read_array(path), stored)
    np.save(path, np.empty((0, 4), np.float32))
    assert read_array(path).shape == (0, 4)
