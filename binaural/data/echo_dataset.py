"""What all data sets of echoes share: items, files, what is counted on the way."""

import os
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.utils.data import Dataset

from binaural.data.augmentation import augment as augment_recording
from binaural.data.camera import read_picture
from binaural.data.depth import read_depth
from binaural.data.front_end import FrontEnd
from binaural.data.spectrogram import OfficialSpectrogram
from binaural.features import CAMERA, MAGNITUDE, check_features

Preprocessing = Literal["default", "official"]

SPLITS = ("train", "val", "test")

INTERPOLATION = {"default": "nearest", "official": "bilinear"}
"""Of the depth maps, by preprocessing."""


UNMEASURED, RESAMPLED = 0, 1  # columns of `EchoDataset.met`


@dataclass(frozen=True)
class Recording:
    """Where one recording lies: a stereo WAV file or one array for each ear, the depth map, the picture."""

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
        recordings: the files of each item.
        front_end: module from waveforms [..., 2, T] to inputs [..., C, S, S].
        waveforms: set it, and items hold the waveform [2, T] in place of the input, for a training loop that
            runs `front_end` itself, in batches on its device.
        met: uint8 [items, 2], which were found without any valid depth, and which were resampled. Shared with
            the loader's workers, so that the training process sees what they met.
    """

    LEAD_IN: ClassVar[int]

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
        self.met = torch.zeros(len(recordings), 2, dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.recordings)

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return self.vary(*self.load_all(index))

    def vary(self, waveform: Tensor, *seen: Tensor) -> tuple[Tensor, ...]:
        """An item made of what `load_all` gave, with random variation if `augment`."""
        if self.augment:
            waveform, *seen = augment_recording(waveform, *seen)  # type: ignore[assignment]
        if self.features == CAMERA:
            return seen[1], seen[0]
        return (waveform if self.waveforms else self.front_end(waveform)), *seen

    def load_all(self, index: int) -> tuple[Tensor, ...]:
        """Waveform and depth as `load`, and the picture where items have one; nothing is augmented."""
        waveform, depth = self.load(index)
        if self.camera or self.features == CAMERA:
            return waveform, depth, self.read_picture(index)
        return waveform, depth

    def description(self) -> dict[str, str]:
        """What an item depends on beside the recording itself."""
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
        return self._read_waveform(index), depth

    def depths(self) -> Iterator[Tensor]:
        """The depth maps [1, S, S] of all items in order, without their sound."""
        return (self._read_depth(index) for index in range(len(self)))

    @property
    def unmeasured(self) -> list[Path]:
        """Depth files met so far, in any worker process, that hold no measurement; they teach nothing."""
        return [self.recordings[i].depth for i in self.met[:, UNMEASURED].nonzero().flatten().tolist()]

    @property
    def resampled(self) -> list[Path]:
        """Audio files met so far, in any worker process, that were not recorded at 44.1 kHz."""
        return [self.recordings[i].audio[0] for i in self.met[:, RESAMPLED].nonzero().flatten().tolist()]

    def remarks(self) -> list[str]:
        """What was met so far, in any worker process, that is not as it should be: a line for each kind."""
        kinds = ((self.unmeasured, "without any valid depth"), (self.resampled, "resampled to 44.1 kHz"))
        return [
            f"{len(files)} of {len(self)} recordings {what}, the first {files[0]}"
            for files, what in kinds
            if files
        ]

    def _read_depth(self, index: int) -> Tensor:
        return read_depth(
            self.recordings[index].depth,
            max_depth=self.max_depth,
            image_size=self.image_size,
            interpolation=INTERPOLATION[self.preprocessing],
        )

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


def resolve(root: Path, recordings: list[Recording], blacklist: Collection[str]) -> list[Recording]:
    """Without the black-listed recordings, paths joined to the root."""
    check_names("blacklist", blacklist)
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
