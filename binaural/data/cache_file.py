"""One memory-mapped file of samples, made once and shared by all processes that train on them.

The file is laid out as safetensors are: an array for each part of a sample, samples along the first axis. Its
metadata say what it was made of; where that is not what is asked for, it is made anew.
"""

import errno
import fcntl
import json
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Arrays = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]  # of each part: type and shape of one sample

_NAMES = {torch.float32: "F32", torch.float16: "F16", torch.uint8: "U8"}
_ALIGNMENT = 64  # bytes: a cache line, and more than any type needs


def open_cache(path: Path, made_of: Mapping[str, str]) -> dict[str, Tensor]:
    """The arrays [samples, ...] of a cache, memory-mapped; what is written to them stays in this process.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no cache, or was made of something else; the message says in what they differ.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start, header = _read_header(file.read(8), file, size)
    metadata = header.pop("__metadata__", {})
    differing = [
        f"{name} {metadata.get(name)}, not {value}"
        for name, value in made_of.items()
        if metadata.get(name) != value
    ]
    if differing:
        raise ValueError(f"made for {'; '.join(differing)}")
    whole = torch.from_file(str(path), shared=False, size=size, dtype=torch.uint8)
    types = {name: dtype for dtype, name in _NAMES.items()}
    arrays = {}
    for name, entry in header.items():
        first, last = (start + offset for offset in entry["data_offsets"])
        arrays[name] = whole[first:last].view(types[entry["dtype"]]).view(entry["shape"])
    return arrays


def build_cache(
    path: Path,
    made_of: Mapping[str, str],
    arrays: Arrays,
    count: int,
    samples: Iterable[Sequence[Tensor]],
) -> None:
    """Write the cache of `count` samples, whole or not at all; call it within `locked`.

    Args:
        path: of the file.
        made_of: what `open_cache` compares.
        arrays: type and shape of each part of a sample.
        samples: the parts of each sample, in the order of `arrays`.

    Raises:
        OSError: the disk is full, say; `path` is then as it was.
    """
    lengths = {name: prod(shape) * dtype.itemsize for name, (dtype, shape) in arrays.items()}
    header, offsets = _make_header(made_of, arrays, count, lengths)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with open(partial, "wb", buffering=0) as file:
            _reserve(file.fileno(), len(header) + count * sum(lengths.values()))
            _write(file.fileno(), header, 0)
            for index, sample in enumerate(samples):
                for part, (name, (dtype, shape)) in zip(sample, arrays.items(), strict=True):
                    if part.shape != shape:
                        raise ValueError(f"{name}: shape {list(part.shape)}, expected {list(shape)}")
                    content = part.to(dtype).contiguous().numpy().data.cast("B")
                    _write(file.fileno(), content, len(header) + offsets[name] + index * lengths[name])
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Be the only process that builds the cache at `path`; wait for another one that does.

    The system lifts the lock however a process ends.
    """
    with open(path.with_name(f"{path.name}.lock"), "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waiting for another process that makes {path}")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read_header(length: bytes, file: Any, size: int) -> tuple[int, dict[str, Any]]:
    """Where the arrays begin, and the header of a file of `size` bytes."""
    try:
        start = 8 + struct.unpack("<Q", length)[0]
        if start > size:
            raise ValueError("its header is cut off")
        header = json.loads(file.read(start - 8))
        last = max(entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__")
        if start + last != size:
            raise ValueError(f"{size} bytes, expected {start + last}")
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a cache ({error})") from error
    return start, header


def _make_header(
    made_of: Mapping[str, str], arrays: Arrays, count: int, lengths: Mapping[str, int]
) -> tuple[bytes, dict[str, int]]:
    """The file's beginning, and where each array begins behind it."""
    entries: dict[str, Any] = {"__metadata__": dict(made_of)}
    offsets, offset = {}, 0
    for name, (dtype, shape) in arrays.items():
        offsets[name], end = offset, offset + count * lengths[name]
        entries[name] = {
            "dtype": _NAMES[dtype],
            "shape": [count, *shape],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries).encode()
    text += b" " * (-(8 + len(text)) % _ALIGNMENT)
    return struct.pack("<Q", len(text)) + text, offsets


def _reserve(descriptor: int, size: int) -> None:
    """Have the file system set the bytes aside now, so that a disk too small is known before the work."""
    if not hasattr(os, "posix_fallocate"):  # macOS
        return
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise


def _write(descriptor: int, content: bytes | memoryview, offset: int) -> None:
    while len(content):
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written
