"""Two real processes learn what one learns from the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from one_step import step

from binaural.training.batches import EpochBatches
from binaural.training.processes import Processes

ROOT = Path(__file__).resolve().parents[3]
SYNCHRONISED = ["binaural", "own weights", "base_residual"]
CPU = torch.device("cpu")


def steps_of_two(out, *names):
    """By name, what `one_step.step` gives in the first of two processes."""
    command = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    script = Path(__file__).with_name("one_step.py")
    subprocess.run(
        [sys.executable, *command, script, out, *names],
        check=True,
        timeout=480,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
    )
    return torch.load(out, weights_only=True)


def assert_alike(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        error = (found[name] - value).norm() / value.norm().clamp(min=1e-6)
        assert error < 1e-3, (name, error)


@pytest.mark.slow
def test_gradients_of_two_processes_are_those_of_one(tmp_path):
    """With batch norm over both, and masks of very different size in their shares."""
    found = steps_of_two(tmp_path / "two.pt", *SYNCHRONISED)
    for name in SYNCHRONISED:
        with Processes(CPU) as alone:
            assert_alike(found[name], step(alone, name))


@pytest.mark.slow
def test_two_processes_that_compile_learn_the_same(tmp_path):
    found = steps_of_two(tmp_path / "two.pt", "eager", "compiled")
    assert_alike(found["compiled"], found["eager"])


def test_shares_make_the_batch():
    def keys(**share):
        batches = EpochBatches(20, 6, seed=0, **share)
        batches.go_to(3)
        return list(batches)

    shares = [keys(rank=rank, count=3) for rank in range(3)]
    joined = [[key for part in parts for key in part] for parts in zip(*shares, strict=True)]
    assert joined == keys()


def test_a_batch_that_cannot_be_shared_is_refused():
    processes = Processes(CPU)
    assert processes.share_of(7) == 7
    processes.count = 2
    with pytest.raises(ValueError, match="batch_size is 7, which 2 processes cannot share equally"):
        processes.share_of(7)
