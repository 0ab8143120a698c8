"""`make gpu` and `python -m benchmarks.gpu`: the message without a GPU, the time limits, the report."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks.gpu import PARTS, Part, run, run_all

ROOT = Path(__file__).resolve().parents[2]


def python(title: str, code: str, minutes: float = 1) -> Part:
    return Part(title, (sys.executable, "-c", code), minutes)


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


@pytest.mark.parametrize("part", [p for p in PARTS if "pytest" not in p.command], ids=lambda part: part.title)
def test_every_part_is_a_command_with_these_options(part: Part) -> None:
    arguments = [*part.command[:3], "--help"]
    if part.title == "Backends":
        assert part.command[3:] == ()
        return
    printed = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for option in part.command[3:]:
        if option.startswith("--"):
            assert option in printed


def test_backends_and_correctness_come_first() -> None:
    assert [part.command[2] for part in PARTS[:4]] == [
        "binaural.kernels",
        "benchmarks.gpu_check",
        "benchmarks.gpu_compare",
        "benchmarks.step_profile",
    ]


def test_a_part_that_fails_is_reported_and_the_next_one_runs(tmp_path: Path) -> None:
    parts = [
        python("First", "print('# A title'); print('## A part')"),
        python("Second", "print('seen'); raise SystemExit(3)"),
        python("Third", "import os; print(os.environ['BENCHMARK_RESULTS'])"),
    ]
    path = tmp_path / "gpu.md"
    outcomes = run_all(parts, None, "Everything on GPU", "GPU, driver 1", path)
    assert [o.result for o in outcomes] == ["passed", "failed (3)", "passed"]
    text = path.read_text()
    assert text.startswith("# Everything on GPU\n\nGPU, driver 1\n\n| part | result | minutes |")
    assert "| First | passed | 0.0 |\n| Second | failed (3) | 0.0 |" in text
    assert "\n\n## A title\n### A part\n\n## Second\n\n```\nseen\n```\n" in text
    assert f"## Third\n\n```\n{tmp_path}\n```\n" in text


def test_a_part_is_stopped_at_its_limit_with_all_that_it_started(tmp_path: Path) -> None:
    child = f"import time; time.sleep(4); open({str(tmp_path / 'late')!r}, 'w')"
    code = "import subprocess, sys; print('begun', flush=True); "
    code += f"subprocess.run([sys.executable, '-c', {child!r}])"
    start = time.perf_counter()
    outcome = run(python("Slow", code), 2, tmp_path)
    assert time.perf_counter() - start < 4
    assert outcome.result == "stopped after 0.0 min"
    assert outcome.output == "begun\n"
    time.sleep(3)
    assert not (tmp_path / "late").exists()


def test_the_report_is_complete_after_every_part(tmp_path: Path) -> None:
    # The second part reads what the report holds while it runs: the first part's result.
    path = tmp_path / "gpu.md"
    parts = [python("First", "print(6 * 7)"), python("Second", f"print(open({str(path)!r}).read())")]
    seen = run_all(parts, None, "T", "M", path)[1].output
    assert "| First | passed | 0.0 |\n| Second | not run | 0.0 |" in seen
    assert "## First\n\n```\n42\n```" in seen


def test_the_time_for_all_parts_is_kept(tmp_path: Path) -> None:
    parts = [python("First", "import time; time.sleep(60)"), python("Second", "print('second')")]
    outcomes = run_all(parts, 0.1, "T", "M", tmp_path / "gpu.md")
    assert [o.result for o in outcomes] == ["stopped after 0.1 min", "not run"]
    assert "| Second | not run | 0.0 |" in (tmp_path / "gpu.md").read_text()
