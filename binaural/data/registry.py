"""The data sets by the names that commands take."""

from pathlib import Path
from typing import Any

from binaural.data.batvision import BatVisionV1, BatVisionV2
from binaural.data.echo_dataset import EchoDataset

# Simulated rooms are written in BatVision V2's layout.
DATASETS: dict[str, type[BatVisionV1] | type[BatVisionV2]] = {
    "simulated": BatVisionV2,
    "batvisionv1": BatVisionV1,
    "batvisionv2": BatVisionV2,
}


def open_split(dataset: str, root: str | Path, split: str, **options: Any) -> EchoDataset:
    """One split of the data set of that name.

    Args:
        dataset: a name in `DATASETS`.
        root: its folder.
        split: "train", "val" or "test".
        options: keyword arguments of its class.

    Raises:
        ValueError: an unknown name, or what the class refuses.
        FileNotFoundError: `root`, a CSV file or a recording is missing.
    """
    if dataset not in DATASETS:
        raise ValueError(f"dataset must be one of {', '.join(DATASETS)}, got {dataset!r}")
    return DATASETS[dataset](root, split, **options)
