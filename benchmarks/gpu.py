"""All that needs a GPU, in one go: `make gpu`, or `python -m benchmarks.gpu` where everything is installed.

    python -m benchmarks.gpu --minutes 9 --out results

runs the most valuable parts first: the backends, the correctness of the kernels and of a compiled training
step, our attention beside PyTorch's, a profile of a training step, and then the rest. Every part is a process
with a time limit. The report is written again whenever a part ends, so that an interruption loses only the
parts that have not run. A part that fails or exceeds its limit does not keep the others from running; the
report says so, and the exit status is then 1. Nothing is downloaded.
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch

from benchmarks.report import RESULTS, table
from binaural.atomic_files import write_atomically

ROOT = Path(__file__).resolve().parent.parent
# A part is not started with less time than this left, in seconds.
SHORTEST = 5.0


@dataclass(frozen=True)
class Part:
    """A command, run in a process of its own, whose standard output becomes a section of the report."""

    title: str
    command: tuple[str, ...]
    minutes: float  # its time limit


@dataclass(frozen=True)
class Outcome:
    """The result of a part."""

    part: Part
    result: str  # "passed", "failed (STATUS)", "stopped after N min" or "not run"
    minutes: float
    output: str


def _module(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


# The most valuable first. Minutes are limits, not estimates: a part ends when it is done.
PARTS = (
    Part("Backends", _module("binaural.kernels"), 1),
    Part("Correctness", _module("benchmarks.gpu_check", "--device", "cuda"), 3),
    Part("Our attention beside PyTorch's", _module("benchmarks.gpu_compare", "--device", "cuda"), 4),
    Part("Profile of a training step", _module("benchmarks.step_profile", "--device", "cuda"), 3),
    Part(
        "Training step",
        _module("benchmarks.training_step", "--device", "cuda", "--seconds", "5", "--no_growth"),
        15,
    ),
    Part(
        "Training step with CUDA graphs",
        _module(
            "benchmarks.training_step",
            "--device",
            "cuda",
            "--graphs",
            "--seconds",
            "5",
            "--no_growth",
            "--no_naive",
        ),
        15,
    ),
    Part("GPU tests", _module("pytest", "-q", "-m", "gpu and not slow", "tests"), 15),
    *(
        Part(
            f"Kernels in {dtype}",
            _module("benchmarks.kernels", "--device", "cuda", "--dtype", dtype, "--seconds", "5"),
            15,
        )
        for dtype in ("bfloat16", "float16", "float32")
    ),
    Part("All tests", _module("pytest", "-q", "--durations=0", "--durations-min=60"), 90),
    Part("Static report", _module("benchmarks.gpu_report"), 60),
)


def build() -> list[Part]:
    """The part that compiles the extension, if it is not there and a CUDA compiler is."""
    if any((ROOT / "binaural/kernels").glob("_C*.so")) or shutil.which("nvcc") is None:
        return []
    return [Part("Building the extension", (sys.executable, "setup.py", "-q", "build_ext", "--inplace"), 5)]


def run(part: Part, seconds: float, out: Path) -> Outcome:
    """Run a part for at most `seconds`. Its output is shown as it is printed, and kept."""
    print(f"== {part.title}: {' '.join(part.command[1:])}", flush=True)
    start = time.perf_counter()
    lines: list[str] = []

    def follow() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)

    # A session of its own: processes that it has started end with it.
    with subprocess.Popen(
        part.command,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        cwd=ROOT,
        env={**os.environ, "BENCHMARK_RESULTS": str(out), "PYTHONUNBUFFERED": "1"},
        start_new_session=True,
    ) as process:
        reader = threading.Thread(target=follow)
        reader.start()
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        reader.join()
    minutes = (time.perf_counter() - start) / 60
    if status is None:
        result = f"stopped after {minutes:.1f} min"
    else:
        result = "passed" if status == 0 else f"failed ({status})"
    return Outcome(part, result, minutes, "".join(lines))


def run_all(
    parts: Sequence[Part], minutes: float | None, title: str, machine: str, path: Path
) -> list[Outcome]:
    """Run the parts in order for at most `minutes` in all, and write the report at `path` after each."""
    end = None if minutes is None else time.perf_counter() + 60 * minutes
    outcomes: list[Outcome] = []
    for part in parts:
        left = 60 * part.minutes
        if end is not None:
            left = min(left, end - time.perf_counter())
        if left < SHORTEST:
            outcomes.append(Outcome(part, "not run", 0, ""))
        else:
            outcomes.append(run(part, left, path.parent))
        waiting = [Outcome(p, "not run", 0, "") for p in parts[len(outcomes) :]]
        write_atomically(path, report(title, machine, [*outcomes, *waiting]).encode())
    return outcomes


def report(title: str, machine: str, outcomes: Sequence[Outcome]) -> str:
    """The report's text: the result of each part, then what each printed."""
    results = [(o.part.title, o.result, f"{o.minutes:.1f}") for o in outcomes]
    sections = [f"# {title}", machine, table(("part", "result", "minutes"), results)]
    for outcome in outcomes:
        printed = outcome.output.strip()
        if not printed:
            continue
        if printed.startswith("# "):  # a report in Markdown, one level below this one
            printed = re.sub(r"^#", "##", printed, flags=re.MULTILINE)
            sections.append(printed)
        else:
            sections.append(f"## {outcome.part.title}\n\n```\n{printed}\n```")
    return "\n\n".join(sections) + "\n"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description="Everything that needs a GPU, the most valuable first.")
    parser.add_argument("--minutes", type=float, help="for all parts together (default: no limit)")
    parser.add_argument(
        "--out", type=Path, default=RESULTS, help="folder of the report (default: %(default)s)"
    )
    options = parser.parse_args()
    if options.minutes is not None and not options.minutes > 0:
        parser.error(f"--minutes must be positive, got {options.minutes}")
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: no NVIDIA GPU is visible to PyTorch")
    name = torch.cuda.get_device_name()
    major, minor = torch.cuda.get_device_capability()
    os.environ.setdefault("TORCH_CUDA_ARCH_LIST", f"{major}.{minor}")  # if the extension is built
    machine = (
        f"{name}, sm_{major}{minor}, driver {_driver()}, torch {torch.__version__} (CUDA "
        f"{torch.version.cuda}). {date.today():%Y-%m-%d}."
    )
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.md"
    outcomes = run_all([*build(), *PARTS], options.minutes, f"Everything on {name}", machine, path)
    passed = sum(outcome.result == "passed" for outcome in outcomes)
    print(f"{path}: {passed} of {len(outcomes)} parts passed")
    if wrong := [f"{o.part.title} {o.result}" for o in outcomes if o.result != "passed"]:
        raise SystemExit(f"benchmarks.gpu: {'; '.join(wrong)}")


if __name__ == "__main__":
    main()
