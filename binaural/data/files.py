"""Readers of the files of a data set: CSV tables and recordings as WAV files or NumPy arrays.

Each reader raises one error that names the file and says what was expected, whatever the file holds. Loading
never executes code, and memory does not grow with what a header claims.
"""

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch import Tensor

from binaural.data.arrays import read_array
from binaural.data.resampling import RATES, SAMPLE_RATE, frames_needed, resample
from binaural.data.wav_header import open_wav

__all__ = ["SAMPLE_RATE", "read_array", "read_ear", "read_table", "read_wav"]

MAX_FRAMES = 1 << 26
"""Frames of the longest recording that is read whole: 25 minutes at 44.1 kHz."""

_MAX_BLOCK = 16  # bytes of a stereo frame of the widest samples, float64


def read_table(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with a header line, as dictionaries of the named columns.

    Rows without any value, as spreadsheets leave them at the end, are skipped.

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
                if not any(value.strip() for value in row.values() if isinstance(value, str)):
                    continue
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
        ValueError: not a WAV file, truncated, not stereo, no frames, longer than `MAX_FRAMES` where it is
            read whole, a sample rate outside `RATES`, or samples that are not finite or not scaled to 1.
    """
    limit = _MAX_BLOCK * (MAX_FRAMES if frames is None else frames_needed(frames, RATES[1]))
    source = open_wav(path, limit)
    try:
        # soundfile scales integer PCM of any width by its full scale.
        with soundfile.SoundFile(source) as file:
            rate = file.samplerate
            if file.channels != 2:
                raise ValueError(f"{path}: {file.channels} channel(s), expected 2 (left ear, right ear)")
            if not RATES[0] <= rate <= RATES[1]:
                raise ValueError(f"{path}: sample rate {rate} Hz, expected {RATES[0]} to {RATES[1]} Hz")
            if frames is None and file.frames > MAX_FRAMES:
                raise ValueError(f"{path}: {file.frames} frames, expected at most {MAX_FRAMES}")
            wanted = file.frames if frames is None else frames_needed(frames, rate)
            samples = file.read(min(wanted, file.frames), dtype="float32", always_2d=True)
            floating = file.subtype in ("FLOAT", "DOUBLE")
    except soundfile.LibsndfileError as error:
        raise ValueError(f"{path}: not a readable WAV file ({error.error_string})") from error
    except (RuntimeError, OverflowError, MemoryError, TypeError) as error:
        raise ValueError(f"{path}: not a readable WAV file ({error})") from error
    if len(samples) == 0:
        raise ValueError(f"{path}: no frames, expected a recording")
    _check_finite(samples, path)
    if floating:
        _check_full_scale(samples, path)
    if rate != SAMPLE_RATE:
        samples = resample(samples, rate)
    return torch.from_numpy(samples[:frames].T.copy()), rate


def read_ear(path: Path, *, scale_integers: bool) -> Tensor:
    """One ear's recording [T] as float32, from a 1-D `.npy` file.

    With `scale_integers` integer samples are divided by the full scale of their type; samples stored as
    floats are taken as they are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not an array file, pickled, not 1-D, not numeric, empty, longer than `MAX_FRAMES`, or a
            sample that is not finite.
    """
    samples = read_array(path)
    if samples.ndim != 1 or not 0 < samples.size <= MAX_FRAMES:
        raise ValueError(
            f"{path}: shape {samples.shape}, expected the samples of one ear [T], at most {MAX_FRAMES}"
        )
    with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, which is refused below
        converted = samples.astype(np.float32)
    _check_finite(converted, path)
    waveform = torch.from_numpy(converted)
    if scale_integers and np.issubdtype(samples.dtype, np.signedinteger):
        waveform /= float(np.iinfo(samples.dtype).max) + 1.0
    return waveform


def _check_finite(samples: np.ndarray, path: Path) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        count = int((~finite).sum())
        raise ValueError(f"{path}: {count} samples are NaN or infinite, expected finite audio")


def _check_full_scale(samples: np.ndarray, path: Path) -> None:
    """Refuse floats that are integers' values, such as -32768 to 32767: they would saturate every input."""
    peak = float(np.abs(samples).max())
    if peak > 64 or (peak > 1 and np.array_equal(samples, np.rint(samples))):
        raise ValueError(
            f"{path}: floating samples up to {peak:g}, expected full scale at 1; divide them by the "
            "full scale of their integers (32768 for 16 bits), or save them as integers"
        )
