"""A trained network together with how its input is made."""

from dataclasses import dataclass
from pathlib import Path

import torch

from binaural.data import NetworkInput
from binaural.features import MAGNITUDE
from binaural.models.loading import load_network
from binaural.models.pretrained import CONFIG, WEIGHTS, Pretrained, read_config

_KEYS = ("dataset", "image_size", "max_depth", "preprocessing")


@dataclass(frozen=True)
class Checkpoint:
    """A network in evaluation mode, the folder it came from, and how its input is made."""

    folder: Path
    network: Pretrained
    input: NetworkInput

    @property
    def name(self) -> str:
        """Folder and kind of network."""
        return f"{self.folder} ({type(self.network).__name__})"


def load_checkpoint(folder: str | Path, device: torch.device) -> Checkpoint:
    """The network that `train.py` saved in `folder`, on `device`.

    Args:
        folder: a run's folder, whose `best` is loaded, or its `best` or `last`.
        device: for the network.

    Raises:
        FileNotFoundError: the folder holds no network.
        ValueError: the network is unknown, its files do not fit each other, or its config does not say how
            its input was made.
    """
    folder = Path(folder)
    if not (folder / WEIGHTS).is_file() and (folder / "best" / WEIGHTS).is_file():
        folder = folder / "best"
    network = load_network(folder)
    described = read_config(folder).get("input")
    if not isinstance(described, dict) or not set(_KEYS) <= described.keys():
        raise ValueError(
            f"{folder / CONFIG} does not say how the network's input was made: expected the key 'input' with "
            f"{', '.join(_KEYS)}, as train.py writes it"
        )
    try:
        features = described.get("features", MAGNITUDE)  # the default of train.py
        network_input = NetworkInput(**{key: described[key] for key in _KEYS}, features=features)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG}, 'input': {error}") from error
    return Checkpoint(folder, network.to(device), network_input)
