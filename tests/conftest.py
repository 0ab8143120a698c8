"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest
import torch
from emulator import Emulator

# Without a GPU, Triton's kernels run in its interpreter. It must be asked for before Triton is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU is visible")


@pytest.fixture(scope="session")
def batvision_sample() -> Path:
    """Root of a data set of one real BatVision V2 recording; the test skips where there is none.

    `BATVISION_SAMPLE` names the folder; without it, it is looked for beside the repository.
    """
    beside = Path(__file__).resolve().parents[2] / "shared/data/batvision_v2_sample"
    root = Path(os.environ.get("BATVISION_SAMPLE", beside))
    if not (root / "Sample/audio").is_dir():
        pytest.skip(f"no real recording at {root}; BATVISION_SAMPLE may name its folder")
    return root


@pytest.fixture(scope="session")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    """Runs CUDA kernels on the CPU; the test skips where their sources cannot be compiled."""
    return Emulator(tmp_path_factory.mktemp("emulation"))
