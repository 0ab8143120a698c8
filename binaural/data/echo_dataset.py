"""Base class of the data sets of echoes: items, files, and counts of recordings with faults."""

import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from binaural.data.augmentation import augment as augment_recording
from binaural.data.camera import read_picture
from binaural.data.depth import METRES_BELOW, open_depth, to_metres
from binaural.data.front_end import FrontEnd
from binaural.data.recording_checks import describe_silence, silent_ears
from binaural.data.spectrogram import OfficialSpectrogram
from binaural.features import CAMERA, MAGNITUDE, check_features

Preprocessing = Literal["default", "official"]

SPLITS = ("train", "val", "test")

INTERPOLATION = {"default": "nearest", "official": "bilinear"}
"""Of the depth maps, by preprocessing."""


UNMEASURED, RESAMPLED, SILENT, FLOATING_DEPTH = range(4)  # columns of `EchoDataset.met`


@dataclass(frozen=True)
class Recording:
    """Files of one recording: a stereo WAV file or one array for each ear, the depth map, the picture."""

    location: str
    audio: tuple[Path, ...]
    depth: Path
    camera: Path | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        return (*self.audio, self.depth, *([] if self.camera is None else [self.camera]))


class EchoDataset(Dataset[tuple[Tensor, ...]]):
    """Recordings as pairs of network input [C, S, S] and depth map [1, S, S], float32, S = `image_size`.

    The input is a spectrogram unless other `features` are asked for: its channels are left and right ear,
    its rows frequency, its columns time. Depth is in metres, at most `max_depth`; 0 means no measurement.
    With `camera` an item has the picture [3, S, S] too, values 0 to 1, as its third.

    Attributes:
        LEAD_IN: samples of a recording before the chirp arrives on its direct way from speaker to ears.
        ONSETS: earliest and latest time in seconds at which a recording exceeds a fifth of its peak; None if
            unknown.
        recordings: the files of each item.
        front_end: module from waveforms [..., 2, T] to inputs [..., C, S, S].
        waveforms: set it, and items hold the waveform [2, T] in place of the input, for a training loop that
            runs `front_end` itself, in batches on its device.
        met: uint8 [items, 4], 1 for items that were found without any valid depth, resampled, with a silent
            ear, or with floating depth. Shared memory: counts of the loader's workers reach the main process.
    """

    LEAD_IN: ClassVar[int]
    ONSETS: ClassVar[tuple[float, float] | None]

    front_end: FrontEnd | OfficialSpectrogram

    def __init__(
        self,
        recordings: list[Recording],
        *,
        max_depth: float,
        image_size: int,
        preprocessing: Preprocessing,
        augment: bool,
        features: Sequence[str] = MAGNITUDE,
        camera: bool = False,
    ) -> None:
        if not (isfinite(max_depth) and max_depth > 0):
            raise ValueError(f"max_depth must be positive metres, got {max_depth}")
        if image_size < 1:
            raise ValueError(f"image_size must be positive, got {image_size}")
        if preprocessing not in ("default", "official"):
            raise ValueError(f'preprocessing must be "default" or "official", got {preprocessing!r}')
        self.recordings = recordings
        self.max_depth = max_depth
        self.image_size = image_size
        self.preprocessing = preprocessing
        self.augment = augment
        self.features = check_features(features)
        self.camera = camera
        self.waveforms = False
        _check_files_exist(recordings)
        self.met = torch.zeros(len(recordings), 4, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.vary(*self.load_all(index))

    def vary(self, waveform: Tensor, *maps: Tensor) -> tuple[Tensor, ...]:
        """An item from the outputs of `load_all`, with random variation if `augment`."""
        if self.augment:
            waveform, *maps = augment_recording(waveform, *maps)  # type: ignore[assignment]
        if self.features == CAMERA:
            return maps[1], maps[0]
        return (waveform if self.waveforms else self.front_end(waveform)), *maps

    def load_all(self, index: int) -> tuple[Tensor, ...]:
        """Waveform and depth as `load`, and the picture where items have one; nothing is augmented."""
        waveform, depth = self.load(index)
        if self.camera or self.features == CAMERA:
            return waveform, depth, self.read_picture(index)
        return waveform, depth

    def description(self) -> dict[str, str]:
        """The options that an item depends on, as text."""
        return {
            "layout": type(self).__name__,
            "image_size": str(self.image_size),
            "max_depth": str(float(self.max_depth)),
            "preprocessing": self.preprocessing,
            "features": " ".join(self.features),
            "camera": str(self.camera),
        }

    def load(self, index: int) -> tuple[Tensor, Tensor]:
        """The waveform [2, T] of an item, full scale at 1, and its depth [1, S, S]; neither is augmented.

        Raises:
            FileNotFoundError: a file is gone.
            ValueError: a file cannot be used; the message names it and says what was expected.
        """
        depth = self._read_depth(index)
        if not depth.any():
            self._note(UNMEASURED, index, f"{self.recordings[index].depth}: no valid depth at all")
        waveform = self._read_waveform(index)
        silent = silent_ears(waveform)
        if silent:
            self._note(SILENT, index, f"{self.recordings[index].audio[0]}: {describe_silence(silent)}")
        return waveform, depth

    def depths(self) -> Iterator[Tensor]:
        """The depth maps [1, S, S] of all items in order, without their sound."""
        return (self._read_depth(index) for index in range(len(self)))

    @property
    def unmeasured(self) -> list[Path]:
        """Depth files read so far, in any worker process, without a measurement."""
        return [recording.depth for recording in self._met(UNMEASURED)]

    @property
    def resampled(self) -> list[Path]:
        """Audio files read so far, in any worker process, that were not recorded at 44.1 kHz."""
        return [recording.audio[0] for recording in self._met(RESAMPLED)]

    @property
    def silent(self) -> list[Path]:
        """Audio files read so far, in any worker process, with a silent ear or two."""
        return [recording.audio[0] for recording in self._met(SILENT)]

    @property
    def floating_depth(self) -> list[Path]:
        """Depth files read so far, in any worker process, that hold floats, taken as millimetres."""
        return [recording.depth for recording in self._met(FLOATING_DEPTH)]

    def remarks(self) -> list[str]:
        """Faults and decisions of reading so far, in any worker process: a line for each kind."""
        kinds = (
            (self.unmeasured, "without any valid depth"),
            (self.resampled, "resampled to 44.1 kHz"),
            (self.silent, "with a silent ear"),
            (
                self.floating_depth,
                f"with depth as floats, taken as millimetres (the median is at least {METRES_BELOW})",
            ),
        )
        return [
            f"{len(files)} of {len(self)} recordings {what}, the first {files[0]}"
            for files, what in kinds
            if files
        ]

    def _read_depth(self, index: int) -> Tensor:
        path = self.recordings[index].depth
        stored = open_depth(path)
        depth = to_metres(
            stored,
            path,
            max_depth=self.max_depth,
            image_size=self.image_size,
            interpolation=INTERPOLATION[self.preprocessing],
        )
        if np.issubdtype(stored.dtype, np.floating):
            self.met[index, FLOATING_DEPTH] = 1
        return depth

    def read_picture(self, index: int) -> Tensor:
        """The camera's picture of an item, [3, S, S] in 0 to 1.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is no picture; the message names it.
        """
        path = self.recordings[index].camera
        assert path is not None, "the data set was opened without pictures"
        return read_picture(path, self.image_size)

    def read_recording(self, index: int) -> Tensor:
        """The whole recording of an item, [2, T] (left, right) at 44.1 kHz, neither cut nor padded.

        Raises as `load` does.
        """
        raise NotImplementedError

    def _read_waveform(self, index: int) -> Tensor:
        raise NotImplementedError

    def _met(self, kind: int) -> list[Recording]:
        return [self.recordings[index] for index in self.met[:, kind].nonzero().flatten().tolist()]

    def _note(self, kind: int, index: int, message: str) -> None:
        """Count a recording; warn at the first of its kind only."""
        if not self.met[:, kind].any():
            warnings.warn(f"{message}; further ones are counted without a warning", stacklevel=4)
        self.met[index, kind] = 1


def check_root(root: str | Path, split: str) -> Path:
    if split not in SPLITS:
        raise ValueError(f"split must be one of {SPLITS}, got {split!r}")
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder, expected the root of a BatVision data set")
    return root


def path_in_table(root: Path, table: Path, *parts: str) -> Path:
    """A path that a CSV file names: relative to `root`, or absolute where it lies outside.

    Backslashes, as Windows writes them, separate folders too. An absolute path in `root` becomes relative,
    also where `root` is relative or a link. Files outside `root` must be named by absolute paths.

    Args:
        root: the data set's folder.
        table: the CSV file, for errors.
        parts: folder and file, or the whole path.

    Raises:
        ValueError: the path is relative and leaves `root` by `..`.
    """
    path = Path(*parts)
    if "\\" in str(path) and not (root / path).exists():
        path = Path(*(part.replace("\\", "/") for part in parts))
    if not path.is_absolute():
        normal = os.path.normpath(path)
        if normal == ".." or normal.startswith("../"):
            raise ValueError(
                f"{table}: {path} lies outside the data folder {root}; expected a path in it, or an "
                "absolute path"
            )
        return path
    for folder in (root.absolute(), root.resolve()):
        if path.is_relative_to(folder):
            return path.relative_to(folder)
    return path


def resolve(root: Path, recordings: list[Recording], blacklist: Collection[str]) -> list[Recording]:
    """Leave out the recordings in the blacklist, and join paths to the root.

    Warns once where recordings lie outside the root.
    """
    check_names("blacklist", blacklist)
    outside = [path for recording in recordings for path in recording.files if path.is_absolute()]
    if outside:
        root = root.absolute()  # so that all paths are of one kind
        warnings.warn(
            f"{root}: {len(outside)} files that the CSV files name lie outside this folder, the first "
            f"{outside[0]}",
            stacklevel=3,
        )
    unwanted = {Path(name) for name in blacklist}
    kept = [
        Recording(
            recording.location,
            tuple(root / path for path in recording.audio),
            root / recording.depth,
            None if recording.camera is None else root / recording.camera,
        )
        for recording in recordings
        if unwanted.isdisjoint((*recording.audio, recording.depth))
    ]
    if not kept:
        raise ValueError(f"{root}: the blacklist leaves none of {len(recordings)} recordings")
    return kept


def check_names(option: str, names: Collection[str] | None) -> None:
    if isinstance(names, str):  # a collection too, of its characters
        raise TypeError(f"{option} must be several names, got the one string {names!r}")


def _check_files_exist(recordings: list[Recording]) -> None:
    missing = [path for recording in recordings for path in recording.files if not os.path.isfile(path)]
    if missing:
        raise FileNotFoundError(
            f"{missing[0]}: no such file, named by the data set's CSV ({len(missing)} files are missing; "
            "blacklist leaves recordings out)"
        )
