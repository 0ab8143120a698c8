"""The day that a GPU is there: what `make gpu` says where there is none, and how its report is made."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import STEPS, Step, report, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is visible")
@pytest.mark.parametrize("command", [["make", "gpu"], [sys.executable, "-m", "benchmarks.gpu"]])
def test_without_a_gpu_it_says_so_in_one_line(command: list[str]) -> None:
    # These tests may run under `make test`: a make inside another one would name the folders it enters.
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ran.returncode != 0
    assert ran.stdout == ""
    (line,) = (line for line in ran.stderr.splitlines() if not line.startswith("make: ***"))
    assert "no NVIDIA GPU is visible" in line


def test_its_steps_are_there() -> None:
    modules = [step.command[2] for step in STEPS]
    kernels = ["binaural.kernels", "pytest", *["benchmarks.kernels"] * 3]
    assert modules == [*kernels, "benchmarks.training_step", "benchmarks.gpu_report"]
    for step in STEPS[2:]:
        arguments = [*step.command[:3], "--help"]
        told = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for option in step.command[3::2]:
            assert option in told


def test_a_step_that_fails_is_reported_and_the_next_one_runs() -> None:
    steps = [
        Step("First", (sys.executable, "-c", "print('# A title'); print('## A part')")),
        Step("Second", (sys.executable, "-c", "print('seen'); raise SystemExit(3)")),
    ]
    outcomes = [run(step) for step in steps]
    text = report("Everything on GPU", "GPU, driver 1", outcomes)
    assert text.startswith("# Everything on GPU\n\nGPU, driver 1\n\n| step | result | minutes |")
    assert "| First | passed | 0.0 |\n| Second | failed (3) | 0.0 |" in text
    assert "\n\n## A title\n### A part\n\n## Second\n\n```\nseen\n```\n" in text
