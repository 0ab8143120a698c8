"""A handful of simulated rooms and small untrained networks, saved as `train.py` saves them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from binaural import BinauralAttentionDepthNet, UNet
from binaural.simulate import simulate_dataset

INPUT = {"dataset": "simulated", "image_size": 32, "max_depth": 10.0, "preprocessing": "default"}


@pytest.fixture
def one_thread():
    """At this size threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with two recordings to train on, two to validate and five to test."""
    root = tmp_path_factory.mktemp("rooms") / "simulated"
    return simulate_dataset(root, rooms_train=2, rooms_val=2, rooms_test=5, workers=1, progress=False)


@pytest.fixture
def save_network(tmp_path: Path) -> Callable[..., Path]:
    """Save a network with random weights, and other input than `INPUT` where named; returns its folder."""

    def save(name: str, network: BinauralAttentionDepthNet | UNet | None = None, **other: Any) -> Path:
        described = {**INPUT, **other}
        if network is None:
            torch.manual_seed(sum(map(ord, name)))
            network = UNet(4, described["max_depth"])
        network.save_pretrained(tmp_path / name, {"input": described})
        return tmp_path / name

    return save
