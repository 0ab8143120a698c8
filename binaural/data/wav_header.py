"""The header of a WAV file, where it differs from the file's length.

A recorder that writes to a pipe, or that is killed, leaves a header whose lengths are zero or a placeholder.
Its samples are whole. A header that promises more than the file holds means that samples were lost.
"""

import io
import os
import struct
from pathlib import Path
from typing import BinaryIO

PLACEHOLDER = 0x7FFFF000
"""Lengths from here on stand for "unknown": sox, arecord, ffmpeg and GStreamer write such."""

_OTHER_CHUNKS = (b"LIST", b"fact", b"bext", b"cue ", b"PEAK", b"id3 ", b"ID3 ", b"JUNK", b"PAD ", b"smpl")


def open_wav(path: Path, limit: int) -> Path | io.BytesIO:
    """The source to open as a WAV file: `path`, or a copy in memory whose header has the right length.

    libsndfile reads placeholders to the end of the file, but zero as no samples.

    Args:
        path: of the file.
        limit: bytes to copy at most.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is shorter than its header promises.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if len(head) < 12 or head[:4] != b"RIFF" or head[8:] != b"WAVE":
            return path
        _check_length(path, size, 8 + struct.unpack("<I", head[4:8])[0])
        data = _find_data(file)
        if data is None:
            return path
        start, length = data
        _check_length(path, size, start + length)
        if length > 0 or start == size:
            return path
        file.seek(start)
        if file.read(4) in _OTHER_CHUNKS:
            return path
        file.seek(0)
        content = bytearray(file.read(min(size, start + limit)))
    content[start - 4 : start] = struct.pack("<I", len(content) - start)
    content[4:8] = struct.pack("<I", len(content) - 8)
    return io.BytesIO(content)


def _check_length(path: Path, size: int, expected: int) -> None:
    if size < expected < PLACEHOLDER:
        raise ValueError(f"{path}: truncated, {size} bytes where its header promises {expected}")


def _find_data(file: BinaryIO) -> tuple[int, int] | None:
    """Where the samples begin and how many bytes the header gives them; None without a data chunk."""
    for _ in range(100):
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        name, length = struct.unpack("<4sI", chunk)
        if name == b"data":
            return file.tell(), length
        file.seek(length + length % 2, os.SEEK_CUR)
    return None
