"""The BatVision data sets (Brunetto et al., IROS 2023) in their published layouts."""

from collections.abc import Collection, Sequence
from math import ceil
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from binaural.data.echo_dataset import (
    RESAMPLED,
    EchoDataset,
    Preprocessing,
    Recording,
    check_names,
    check_root,
    path_in_table,
    resolve,
)
from binaural.data.files import SAMPLE_RATE, read_ear, read_table, read_wav
from binaural.data.front_end import make_front_end
from binaural.data.spectrogram import OfficialSpectrogram, check_official_length
from binaural.features import CAMERA, MAGNITUDE

SPEED_OF_SOUND = 343.0
"""In metres per second."""

V1_CROP = (970, 970 + 2646)
"""Samples [start, stop) of a BatVision V1 recording between its near-blank beginning and 60 ms later."""


class BatVisionV2(EchoDataset):
    """BatVision V2: `<root>/<location>/<split>.csv` with stereo WAV files and depth maps beside it.

    Preprocessing `"default"`: the waveform from its beginning to the echo from `max_depth`, as
    `LogSpectrogram`; each depth the nearest pixel's, no measurement stays none. `"official"`: as
    BatVision's own code, with depth in metres (that code divides it by `max_depth` at last).

    Args:
        root: folder of the location folders; files and folders without `<split>.csv` in it are ignored.
        split: `"train"`, `"val"` or `"test"`.
        max_depth: metres; larger depths become this.
        image_size: rows and columns of spectrogram and depth map.
        preprocessing: `"default"` or `"official"`.
        locations: names of the locations to read; all of them by default.
        exclude_locations: names of locations to leave out, to hold them out for testing.
        blacklist: audio or depth files to leave out, as paths relative to `root`
            (`"Attic/audio/audio_12.wav"`).
        augment: vary each recording at random (`binaural.data.augmentation`).
        features: input features, names in `binaural.features.FEATURES`.
        camera: items have the camera's picture too.

    Raises:
        FileNotFoundError: `root`, a CSV file that was asked for, or a recording is missing.
        TypeError: one string where several names are expected.
        ValueError: an option is wrong, a CSV file is malformed, or no recording is left.
    """

    COLUMNS = ("audio path", "audio file name", "depth path", "depth file name")
    CAMERA_COLUMNS = ("camera path", "camera file name")

    LEAD_IN = 269  # 6.1 ms
    ONSETS = (0.0059, 0.0075)  # seconds; in published and simulated recordings 0.00655 to 0.00703

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        max_depth: float = 30.0,
        image_size: int = 256,
        preprocessing: Preprocessing = "default",
        locations: Collection[str] | None = None,
        exclude_locations: Collection[str] = (),
        blacklist: Collection[str] = (),
        augment: bool = False,
        features: Sequence[str] = MAGNITUDE,
        camera: bool = False,
    ) -> None:
        root = check_root(root, split)
        pictures = camera or tuple(features) == CAMERA
        columns = self.COLUMNS + (self.CAMERA_COLUMNS if pictures else ())
        recordings = []
        for location in _select_locations(root, split, locations, exclude_locations):
            table = root / location / f"{split}.csv"
            for row in read_table(table, columns):
                audio = path_in_table(root, table, row["audio path"], row["audio file name"])
                depth = path_in_table(root, table, row["depth path"], row["depth file name"])
                picture = None
                if pictures:
                    picture = path_in_table(root, table, *(row[name] for name in self.CAMERA_COLUMNS))
                recordings.append(Recording(location, (audio,), depth, picture))
        super().__init__(
            resolve(root, recordings, blacklist),
            max_depth=max_depth,
            image_size=image_size,
            preprocessing=preprocessing,
            augment=augment,
            features=features,
            camera=camera,
        )
        self.frames = self.frames_to(max_depth, preprocessing)
        self.front_end = make_front_end(features, self.frames, image_size, preprocessing)

    @classmethod
    def frames_to(cls, max_depth: float, preprocessing: Preprocessing) -> int:
        """Samples from a recording's beginning to the echo from `max_depth` metres.

        Raises:
            ValueError: they are fewer than the official preprocessing needs.
        """
        if preprocessing == "official":
            frames = int(2 * max_depth / 340 * SAMPLE_RATE)
            if frames < OfficialSpectrogram.MIN_SAMPLES:
                raise ValueError(
                    f"max_depth={max_depth:g}: {frames} samples, expected at least "
                    f"{OfficialSpectrogram.MIN_SAMPLES} (1 m) with the official preprocessing"
                )
            return frames
        return cls.LEAD_IN + ceil(2 * max_depth / SPEED_OF_SOUND * SAMPLE_RATE)

    def read_recording(self, index: int) -> Tensor:
        return self._read_frames(index, None)

    def _read_waveform(self, index: int) -> Tensor:
        if isinstance(self.front_end, OfficialSpectrogram):
            waveform = self._read_frames(index, self.frames)
            check_official_length(waveform, self.recordings[index].audio[0])
            return waveform
        waveform = self._read_frames(index, self.front_end.num_samples)
        if waveform.shape[1] < self.frames:
            raise ValueError(
                f"{self.recordings[index].audio[0]}: {waveform.shape[1]} frames at 44.1 kHz, expected at "
                f"least {self.frames}, the time of an echo from max_depth={self.max_depth:g} m"
            )
        return F.pad(waveform, (0, self.front_end.num_samples - waveform.shape[1]))

    def _read_frames(self, index: int, frames: int | None) -> Tensor:
        path = self.recordings[index].audio[0]
        waveform, rate = read_wav(path, frames)
        if rate != SAMPLE_RATE:
            self._note(RESAMPLED, index, f"{path}: recorded at {rate} Hz, resampled to {SAMPLE_RATE} Hz")
        return waveform


class BatVisionV1(EchoDataset):
    """BatVision V1: `<root>/<split>.csv`, an `.npy` file for each ear, and depth maps, at most 12 m.

    Preprocessing `"default"`: the samples of `crop` as `LogSpectrogram`; each depth the nearest pixel's, no
    measurement stays none. `"official"`: as BatVision's own code (the whole recording, as stored), with
    depth in metres; infinite depth is no measurement here, while that code turns it into `max_depth`.

    Args:
        root: folder of the CSV files, whose paths are relative to it.
        split: `"train"`, `"val"` or `"test"`.
        max_depth: metres; larger depths become this.
        image_size: rows and columns of spectrogram and depth map.
        preprocessing: `"default"` or `"official"`.
        blacklist: audio or depth files to leave out, as paths relative to `root`.
        crop: samples (start, stop) of the recordings to use; None uses them whole, and then all must be as
            long as the first. `"preset"` is `V1_CROP` for the default preprocessing and None for the
            official one.
        augment: vary each recording at random (`binaural.data.augmentation`).
        features: input features, names in `binaural.features.SOUND`.
        camera: must be False; the camera's pictures of this data set are not read.

    Raises:
        FileNotFoundError: `root`, the CSV file, or a recording is missing.
        TypeError: one string where several names are expected.
        ValueError: an option is wrong, the CSV file is malformed, or no recording is left.
    """

    COLUMNS = ("depth path", "audio path left", "audio path right")

    LEAD_IN = 980  # about: what its users report
    ONSETS = None  # not known precisely

    def __init__(
        self,
        root: str | Path,
        split: str,
        *,
        max_depth: float = 12.0,
        image_size: int = 256,
        preprocessing: Preprocessing = "default",
        blacklist: Collection[str] = (),
        crop: tuple[int, int] | Literal["preset"] | None = "preset",
        augment: bool = False,
        features: Sequence[str] = MAGNITUDE,
        camera: bool = False,
    ) -> None:
        if camera or tuple(features) == CAMERA:
            raise ValueError("camera pictures are read from BatVision V2 and simulated rooms, not from V1")
        root = check_root(root, split)
        table = root / f"{split}.csv"
        recordings = []
        for row in read_table(table, self.COLUMNS):
            depth, *ears = (path_in_table(root, table, row[column]) for column in self.COLUMNS)
            recordings.append(Recording("", tuple(ears), depth))
        super().__init__(
            resolve(root, recordings, blacklist),
            max_depth=max_depth,
            image_size=image_size,
            preprocessing=preprocessing,
            augment=augment,
            features=features,
        )
        if crop == "preset":
            crop = None if preprocessing == "official" else V1_CROP
        if crop is None:
            crop = (0, len(read_ear(self.recordings[0].audio[0], scale_integers=False)))
            self.whole = True
        else:
            self.whole = False
        if not 0 <= crop[0] < crop[1]:
            raise ValueError(f"crop must be (start, stop) with 0 <= start < stop, got {crop}")
        self.crop = crop
        self.front_end = make_front_end(features, crop[1] - crop[0], image_size, preprocessing)

    def description(self) -> dict[str, str]:
        return {**super().description(), "crop": str(self.crop)}

    def read_recording(self, index: int) -> Tensor:
        left_path, right_path = self.recordings[index].audio
        scale = self.preprocessing != "official"
        left, right = (read_ear(path, scale_integers=scale) for path in (left_path, right_path))
        if len(left) != len(right):
            raise ValueError(
                f"{left_path} has {len(left)} samples and {right_path} has {len(right)}, "
                "expected the same number for both ears"
            )
        return torch.stack((left, right))

    def _read_waveform(self, index: int) -> Tensor:
        recording = self.read_recording(index)
        samples, (start, stop) = recording.shape[1], self.crop
        if samples < stop or (self.whole and samples != stop):
            path = self.recordings[index].audio[0]
            expected = "as many as the first recording" if self.whole else f"crop={self.crop}"
            raise ValueError(f"{path}: {samples} samples, expected {stop} ({expected})")
        waveform = recording[:, start:stop]
        if isinstance(self.front_end, OfficialSpectrogram):
            check_official_length(waveform, self.recordings[index].audio[0])
        return waveform


def _select_locations(
    root: Path, split: str, locations: Collection[str] | None, exclude: Collection[str]
) -> list[str]:
    """Names of the location folders to read, sorted, so that the order of items is the same everywhere."""
    check_names("locations", locations)
    check_names("exclude_locations", exclude)
    found = sorted(path.parent.name for path in root.glob(f"*/{split}.csv"))
    if not found:
        hint = "; this looks like one location, or BatVision V1" if (root / f"{split}.csv").exists() else ""
        raise FileNotFoundError(
            f"{root}: no <location>/{split}.csv, expected the layout of BatVision V2{hint}"
        )
    for name in (*(locations or ()), *exclude):
        if name not in found:
            raise ValueError(f"{root}: no location {name!r} with a {split}.csv, found {found}")
    chosen = [name for name in found if (locations is None or name in locations) and name not in exclude]
    if not chosen:
        raise ValueError(f"{root}: locations and exclude_locations leave nothing of {found}")
    return chosen
