"""A network's input from any recording, made as in its training."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from binaural.data.batvision import V1_CROP, BatVisionV2
from binaural.data.echo_dataset import Preprocessing
from binaural.data.files import SAMPLE_RATE
from binaural.data.front_end import make_front_end
from binaural.data.registry import DATASETS
from binaural.data.spectrogram import LogSpectrogram, OfficialSpectrogram, TimeGrid
from binaural.features import CAMERA, MAGNITUDE, check_features

LARGEST_IMAGE_SIZE = 2048
"""Rows and columns of an input, at most: beyond it a single sample takes gigabytes."""


class NetworkInput:
    """Cuts whole recordings as the data set of a training run does and makes its features of them.

    Recordings of another data set are shifted in time, so that the chirp arrives as in training; missing
    samples at either end are zeros.

    Args:
        dataset: name of the training run's data set, in `binaural.data.DATASETS`.
        image_size: rows and columns of the input, at most `LARGEST_IMAGE_SIZE`.
        max_depth: metres, the training run's.
        preprocessing: "default" or "official".
        features: input features, names in `binaural.features.FEATURES`.

    Attributes:
        lead_in: samples before the chirp arrives, in the training run's recordings.
        onsets: earliest and latest onset of those recordings in seconds, as `EchoDataset.ONSETS`.
        start: first sample of such a recording that the input covers.
        needed: samples from there that a recording must have to show the echo from `max_depth`; None for all.
        length: samples from there that the input covers; None for all.

    Raises:
        ValueError: an unknown data set, or an option that it refuses.
    """

    def __init__(
        self,
        dataset: str,
        image_size: int,
        max_depth: float,
        preprocessing: Preprocessing,
        features: Sequence[str] = MAGNITUDE,
    ) -> None:
        if dataset not in DATASETS:
            raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
        if preprocessing not in ("default", "official"):
            raise ValueError(f'preprocessing must be "default" or "official", got {preprocessing!r}')
        if not isinstance(image_size, int) or not 1 <= image_size <= LARGEST_IMAGE_SIZE:
            raise ValueError(f"image_size must be from 1 to {LARGEST_IMAGE_SIZE}, got {image_size!r}")
        self.dataset, self.image_size = dataset, image_size
        self.max_depth, self.preprocessing = max_depth, preprocessing
        self.features = check_features(features)
        kind = DATASETS[dataset]
        self.lead_in, self.onsets = kind.LEAD_IN, kind.ONSETS
        self.start = 0
        self.needed: int | None = None
        if issubclass(kind, BatVisionV2):
            self.needed = kind.frames_to(max_depth, preprocessing)
        elif preprocessing == "default":
            self.start, self.needed = V1_CROP[0], V1_CROP[1] - V1_CROP[0]
        self.length = self.needed
        self.front_end = make_front_end(features, self.needed or 1, image_size, preprocessing)
        if preprocessing == "default" and issubclass(kind, BatVisionV2):
            # The last columns show the samples that follow; with version 1 they show zeros.
            self.length = self._grid.num_samples

    @property
    def sees(self) -> bool:
        """The network's input is the camera's picture, without sound."""
        return self.features == CAMERA

    @property
    def _grid(self) -> TimeGrid:
        return TimeGrid.over(self.needed or 1, self.image_size)

    def __call__(self, recording: Tensor, lead_in: int | None = None) -> Tensor:
        """The network's input [C, S, S] of a whole recording [2, T] at 44.1 kHz, full scale at 1.

        Args:
            lead_in: samples before the chirp arrives in this recording; the training run's by default.
        """
        return self.front_end(self.cut(recording, lead_in))

    def cut(self, recording: Tensor, lead_in: int | None = None) -> Tensor:
        """The samples [2, length] of a recording [2, T] that the input is made of."""
        start = self.first_sample(lead_in)
        if start < 0:
            recording, start = F.pad(recording, (-start, 0)), 0
        recording = recording[:, start:]
        if self.length is None:
            return recording
        recording = recording[:, : self.length]
        return F.pad(recording, (0, self.length - recording.shape[1]))

    def first_sample(self, lead_in: int | None = None) -> int:
        """First sample of the input in a recording with that lead-in; negative: zeros come first."""
        return self.start + (0 if lead_in is None else lead_in - self.lead_in)

    def check_length(self, recording: Tensor, name: object) -> None:
        """Refuse a recording [2, T], of the training run's kind, that ends too early.

        Raises:
            ValueError: naming it as `name`.
        """
        shortest = OfficialSpectrogram.MIN_SAMPLES if self.preprocessing == "official" else 1
        needed = self.start + max(self.needed or 1, shortest)
        if recording.shape[1] < needed:
            raise ValueError(
                f"{name}: {recording.shape[1]} samples at 44.1 kHz, expected at least {needed}, up to the "
                f"echo from {self.max_depth:g} m, the network's max_depth"
            )

    def column_seconds(self, recording: Tensor | None = None) -> float:
        """Seconds that a column of the input stands for.

        With the default preprocessing that is hop × windows a column / sample rate.

        Args:
            recording: [2, T], needed if the input covers whole recordings.
        """
        if self.preprocessing == "default":
            return self._grid.column / SAMPLE_RATE
        length = self.length
        if length is None:
            if recording is None:
                raise ValueError(
                    "the input covers whole recordings: the time of a column depends on their length"
                )
            length = recording.shape[1]
        return length / self.image_size / SAMPLE_RATE

    def decibels(self, recording: Tensor, lead_in: int | None = None) -> Tensor:
        """Level of both ears in decibels over frequency and time, [2, S, S], whatever the features.

        The arguments are those of a call.
        """
        waveform = self.cut(recording, lead_in)
        if self.preprocessing == "official":
            magnitude = OfficialSpectrogram(self.image_size)(waveform)
            return 20 * torch.log10(magnitude.clamp(min=10 ** (LogSpectrogram.FLOOR_DB / 20)))
        assert self.needed is not None
        return (1 - LogSpectrogram(self.needed, self.image_size)(waveform)) * LogSpectrogram.FLOOR_DB
