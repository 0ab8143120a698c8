"""Fixtures for all tests."""

import os
from pathlib import Path

import pytest


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
