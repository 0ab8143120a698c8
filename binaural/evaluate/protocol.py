"""Evaluation protocol: split, valid pixels, depth range."""

import math
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.utils.data import Dataset

from binaural.data import NetworkInput, open_split
from binaural.data.depth import read_depth
from binaural.data.echo_dataset import INTERPOLATION, Preprocessing
from binaural.features import CAMERA, MAGNITUDE

Beyond = Literal["clamp", "exclude"]

BANDS = (0.0, 1.0, 2.0, 4.0, 8.0, math.inf)
"""Edges, in metres, of the bands of true depth for which metrics are reported."""


@dataclass(frozen=True)
class Protocol:
    """How networks are measured; the same for all networks that are compared.

    Attributes:
        dataset, dataset_dir, split: the recordings.
        locations: the locations to measure on; None for all.
        threshold: metres; only pixels with a larger true depth count.
        max_depth: metres; larger predictions are clamped to it.
        beyond: true depth beyond `max_depth` is taken as `max_depth` ("clamp", as in training) or not
            counted ("exclude").
        image_size: rows and columns of the true depth map; predictions of another size are resized
            bilinearly to it.
        preprocessing: how true depth is resized: nearest pixel ("default"), or bilinearly as in BatVision's
            own code ("official").
        bands: edges in metres; a band counts true depths above its first edge and up to its second.

    Raises:
        ValueError: a threshold below 0, a depth or size that is not positive, a threshold at or beyond
            `max_depth`, edges that do not ascend from 0.
    """

    dataset: str
    dataset_dir: str
    split: str
    max_depth: float
    image_size: int
    preprocessing: Preprocessing = "default"
    locations: tuple[str, ...] | None = None
    threshold: float = 0.0
    beyond: Beyond = "clamp"
    bands: tuple[float, ...] = BANDS

    def __post_init__(self) -> None:
        if not 0 <= self.threshold < self.max_depth:
            raise ValueError(
                f"the threshold must lie between 0 m and max_depth={self.max_depth:g} m, "
                f"got {self.threshold:g}"
            )
        if self.image_size < 1:
            raise ValueError(f"image_size must be positive, got {self.image_size}")
        if self.beyond not in get_args(Beyond):
            raise ValueError(f"beyond must be one of {get_args(Beyond)}, got {self.beyond!r}")
        if self.preprocessing not in INTERPOLATION:
            raise ValueError(
                f"preprocessing must be one of {tuple(INTERPOLATION)}, got {self.preprocessing!r}"
            )
        ascending = all(low < high for low, high in pairwise(self.bands))
        if len(self.bands) < 2 or self.bands[0] < 0 or not ascending:
            raise ValueError(f"bands must be edges that ascend from at least 0 m, got {self.bands}")

    @property
    def band_names(self) -> list[str]:
        """ "0-1 m", ..., "8+ m"."""
        return [
            f"{low:g}+ m" if math.isinf(high) else f"{low:g}-{high:g} m" for low, high in pairwise(self.bands)
        ]

    def describe(self) -> list[str]:
        """The protocol as lines of text."""
        rule = "taken as that depth" if self.beyond == "clamp" else "not counted"
        resize = "nearest pixel" if self.preprocessing == "default" else "bilinear, as BatVision's code"
        where = "" if self.locations is None else f", locations {', '.join(self.locations)}"
        return [
            f"recordings   {self.dataset}, {self.split} split of {self.dataset_dir}{where}",
            f"pixels       true depth above {self.threshold:g} m; beyond {self.max_depth:g} m it is {rule}",
            f"predictions  clamped at {self.max_depth:g} m; resized bilinearly if not {self.image_size} wide",
            f"resolution   {self.image_size} x {self.image_size}, true depth: {resize}",
            "averages     metrics of each image, then their mean over the images",
        ]

    def to_json(self) -> dict[str, Any]:
        """The protocol as JSON values."""
        edges = [None if math.isinf(edge) else edge for edge in self.bands]
        return {**asdict(self), "bands": edges}


class EvaluationSet(Dataset[tuple[Tensor, Tensor]]):
    """The recordings of a protocol: a network's input [C, S, S] and the true depth [1, s, s], metres.

    The input is made as in the network's training; the true depth depends on the protocol alone.

    Args:
        protocol: recordings and true depth.
        network_input: how the network's input is made.

    Attributes:
        features: names of the input features.
        lead_in: samples before the chirp arrives in these recordings.
        files, locations: one per item; files are relative to the data set's folder.

    Raises:
        FileNotFoundError, ValueError: as the data set's class.
    """

    def __init__(self, protocol: Protocol, network_input: NetworkInput) -> None:
        chosen: dict[str, Any] = {}
        if protocol.locations is not None:
            if protocol.dataset == "batvisionv1":
                raise ValueError("--locations: batvisionv1 has no locations, batvisionv2 does")
            chosen["locations"] = protocol.locations
        self.dataset = open_split(
            protocol.dataset,
            protocol.dataset_dir,
            protocol.split,
            # Needed by V1 alone, which scales its samples by it.
            preprocessing=network_input.preprocessing,
            # Pictures are read only for networks that use them.
            features=CAMERA if network_input.sees else MAGNITUDE,
            image_size=network_input.image_size,
            **chosen,
        )
        self.protocol, self.network_input = protocol, network_input
        self.features = network_input.features
        self.lead_in = self.dataset.LEAD_IN
        root = protocol.dataset_dir
        audio = [recording.audio[0] for recording in self.dataset.recordings]
        self.files = [str(path.relative_to(root) if path.is_relative_to(root) else path) for path in audio]
        self.locations = [r.location for r in self.dataset.recordings]

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.network_input.sees:
            return self.dataset.read_picture(index), self.true_depth(index)
        recording = self.dataset.read_recording(index)
        if self.network_input.lead_in == self.lead_in:
            self.network_input.check_length(recording, self.dataset.recordings[index].audio[0])
        return self.network_input(recording, self.lead_in), self.true_depth(index)

    def true_depth(self, index: int) -> Tensor:
        """[1, s, s], metres; 0 means no measurement."""
        protocol = self.protocol
        exclude = protocol.beyond == "exclude"
        depth = read_depth(
            self.dataset.recordings[index].depth,
            max_depth=math.inf if exclude else protocol.max_depth,
            image_size=protocol.image_size,
            interpolation=INTERPOLATION[protocol.preprocessing],
        )
        return torch.where(depth > protocol.max_depth, 0.0, depth) if exclude else depth

    def describe_input(self) -> str:
        """The samples of a recording that the network uses, and their features, as text."""
        if self.network_input.sees:
            return "the camera's picture"
        first = self.network_input.first_sample(self.lead_in)
        length = self.network_input.length
        samples = f"{first} to the end" if length is None else f"{first} to {first + length - 1}"
        features = ", ".join(self.network_input.features)
        return f"samples {samples}, {features}, {self.network_input.preprocessing} preprocessing"
