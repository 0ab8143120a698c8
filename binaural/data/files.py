"""Readers of the files of a data set: CSV tables, WAV recordings, NumPy arrays.

Each refuses what it cannot read with an error that names the file and says what was expected. Loading
never executes code: pickled arrays are refused.
"""

import csv
import os
import struct
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
import torchaudio.transforms
from torch import Tensor

SAMPLE_RATE = 44100
"""Sample rate in Hz that every recording is brought to."""


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header line, as dictionaries of the named columns.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is empty, lacks a column, has no rows, or a row lacks a value.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames
            if not header:
                raise ValueError(f"{path}: empty, expected a CSV header with the columns {list(columns)}")
            missing = [name for name in columns if name not in header]
            if missing:
                raise ValueError(
                    f"{path}: no column {missing}, expected {list(columns)}, found {list(header)}"
                )
            rows = []
            for row in reader:
                blank = [name for name in columns if not row[name]]
                if blank:
                    raise ValueError(f"{path}, line {reader.line_num}: no value in the columns {blank}")
                rows.append({name: row[name] for name in columns})
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV text file ({error})") from error
    if not rows:
        raise ValueError(f"{path}: no rows below the header, expected one row for each recording")
    return rows


def read_wav(path: Path, frames: int | None) -> tuple[Tensor, int]:
    """The first `frames` frames at 44.1 kHz of a stereo WAV file (all, where it is shorter, or for None).

    Returns the waveform [2, T] (left, right) as float32 with full scale at 1, and the sample rate in Hz that
    the file itself has; where that is not 44.1 kHz the waveform was resampled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a WAV file, truncated, not stereo, no frames, or a sample that is not finite.
    """
    try:
        _check_riff_length(path)
        # soundfile scales integer PCM of any width by its full scale.
        with soundfile.SoundFile(path) as file:
            rate, channels = file.samplerate, file.channels
            if channels != 2:
                raise ValueError(f"{path}: {channels} channel(s), expected 2 (left ear, right ear)")
            wanted = -1 if frames is None or rate != SAMPLE_RATE else frames
            samples = file.read(wanted, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: not a readable WAV file ({error.error_string})") from error
    if len(samples) == 0:
        raise ValueError(f"{path}: no frames, expected a recording")
    waveform = torch.from_numpy(samples.T.copy())
    _check_finite(waveform, path)
    if rate != SAMPLE_RATE:
        waveform = _resampler(rate)(waveform)[:, :frames]
    return waveform, rate


def read_ear(path: Path, *, scale_integers: bool) -> Tensor:
    """One ear's recording [T] as float32, from a 1-D `.npy` file.

    With `scale_integers` integer samples are divided by the full scale of their type; samples stored as
    floats are taken as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an array file, pickled, not 1-D, not numeric, empty, or a sample that is not finite.
    """
    samples = read_array(path)
    if samples.ndim != 1 or samples.size == 0:
        raise ValueError(f"{path}: shape {samples.shape}, expected the samples of one ear [T]")
    waveform = torch.from_numpy(samples.astype(np.float32))
    if scale_integers and np.issubdtype(samples.dtype, np.signedinteger):
        waveform /= float(np.iinfo(samples.dtype).max) + 1.0
    _check_finite(waveform, path)
    return waveform


def read_array(path: Path) -> np.ndarray:
    """The array of real numbers in a `.npy` file, memory-mapped read-only.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a `.npy` file, truncated, pickled, or not of an integer or floating type.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(
            f"{path}: not a readable .npy array ({error}); expected numbers saved by numpy.save, "
            "pickled objects are refused"
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: an archive of arrays, expected one array saved by numpy.save")
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ValueError(f"{path}: type {array.dtype}, expected integers or floats")
    return array


def _check_riff_length(path: Path) -> None:
    # libsndfile shortens a truncated recording without a word; the length in the RIFF header tells.
    with open(path, "rb") as file:
        head = file.read(8)
        size = os.fstat(file.fileno()).st_size
    if len(head) == 8 and head[:4] == b"RIFF":
        expected = struct.unpack("<I", head[4:])[0] + 8
        streamed = expected == 0xFFFFFFFF + 8  # written to a pipe, length unknown
        if size < expected and not streamed:
            raise ValueError(f"{path}: truncated, {size} bytes where its header promises {expected}")


def _check_finite(waveform: Tensor, path: Path) -> None:
    if not torch.isfinite(waveform).all():
        count = int((~torch.isfinite(waveform)).sum())
        raise ValueError(f"{path}: {count} samples are NaN or infinite, expected finite audio")


@lru_cache(maxsize=8)
def _resampler(rate: int) -> torchaudio.transforms.Resample:
    return torchaudio.transforms.Resample(rate, SAMPLE_RATE)
