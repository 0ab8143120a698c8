"""Reading of one array of numbers from a `.npy` file."""

from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.lib import format as npy


def read_array(path: Path) -> np.ndarray:
    """The array of real numbers in a `.npy` file, memory-mapped read-only.

    The header is checked against the file's length before anything is allocated.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a `.npy` file, truncated, pickled, or not of an integer or floating type.
    """
    try:
        with open(path, "rb") as file:
            if file.read(2) == b"PK":
                raise ValueError("an archive of arrays, as numpy.savez writes it")
            file.seek(0)
            shape, fortran_order, dtype = _read_header(file)
            offset = file.tell()
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged header makes NumPy raise TokenError, RecursionError, TypeError ...
        raise _unreadable(path, error) from error
    if dtype.hasobject:
        raise _unreadable(path, ValueError("it holds Python objects"))
    if not (np.issubdtype(dtype, np.integer) or np.issubdtype(dtype, np.floating)):
        raise ValueError(f"{path}: type {dtype}, expected integers or floats")
    try:
        if 0 in shape:
            return np.empty(shape, dtype)
        return np.memmap(path, dtype, "r", offset, shape, "F" if fortran_order else "C")
    except (ValueError, OverflowError, OSError, MemoryError) as error:
        raise _unreadable(path, error) from error


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, whether the order is Fortran's, and type."""
    version = npy.read_magic(file)
    if version == (1, 0):
        shape, fortran_order, dtype = npy.read_array_header_1_0(file)
    elif version == (2, 0):
        shape, fortran_order, dtype = npy.read_array_header_2_0(file)
    else:
        raise ValueError(f"format version {version}, expected (1, 0) or (2, 0)")
    # bool is a subclass of int.
    if not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError(f"shape {shape}")
    return shape, fortran_order, dtype


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return ValueError(
        f"{path}: not a readable .npy array ({reason}); expected numbers saved by numpy.save, "
        "pickled objects are refused"
    )
