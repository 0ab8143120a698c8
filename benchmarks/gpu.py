"""All that needs a GPU, in one go: `make gpu`, or `python -m benchmarks.gpu` where everything is set up.

Runs the tests, those marked `gpu` and compute-sanitizer's included, the benchmarks in every precision and the
static report, and writes one report with the GPU's name into benchmarks/results/. A step that fails does not
keep the others from running; it is in the report, and the exit status is then 1.
"""

import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import torch

from benchmarks.report import RESULTS, table
from binaural.atomic_files import write_atomically


@dataclass(frozen=True)
class Step:
    """A command, run in a process of its own, whose standard output becomes a section of the report."""

    title: str
    command: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What became of a step."""

    step: Step
    status: int
    minutes: float
    output: str


def _module(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *arguments)


STEPS = (
    Step("Backends", _module("binaural.kernels")),
    Step("Tests", _module("pytest", "-q", "--durations=0", "--durations-min=60")),
    *(
        Step(f"Kernels in {dtype}", _module("benchmarks.kernels", "--device", "cuda", "--dtype", dtype))
        for dtype in ("bfloat16", "float16", "float32")
    ),
    Step("Training step", _module("benchmarks.training_step", "--device", "cuda")),
    Step("What the compiler tells", _module("benchmarks.gpu_report")),
)


def run(step: Step) -> Outcome:
    """Run a step; its output is shown as it comes, and kept."""
    print(f"== {step.title}: {' '.join(step.command[1:])}", flush=True)
    start = time.perf_counter()
    lines = []
    with subprocess.Popen(step.command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    return Outcome(step, process.returncode, (time.perf_counter() - start) / 60, "".join(lines))


def report(title: str, machine: str, outcomes: Sequence[Outcome]) -> str:
    """The report's text: what ran and what became of it, then what each step printed."""
    ran = [
        (o.step.title, "passed" if o.status == 0 else f"failed ({o.status})", f"{o.minutes:.1f}")
        for o in outcomes
    ]
    parts = [f"# {title}", machine, table(("step", "result", "minutes"), ran)]
    for outcome in outcomes:
        printed = outcome.output.strip()
        if printed.startswith("# "):  # a report in Markdown, one level below this one
            printed = re.sub(r"^#", "##", printed, flags=re.MULTILINE)
            parts.append(printed)
        else:
            parts.append(f"## {outcome.step.title}\n\n```\n{printed}\n```")
    return "\n\n".join(parts) + "\n"


def _driver() -> str:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader", "--id=0"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def main() -> None:
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks.gpu: no NVIDIA GPU is visible to PyTorch")
    name = torch.cuda.get_device_name()
    major, minor = torch.cuda.get_device_capability()
    machine = (
        f"{name}, sm_{major}{minor}, driver {_driver()}, torch {torch.__version__} (CUDA "
        f"{torch.version.cuda}). {date.today():%Y-%m-%d}."
    )
    outcomes = [run(step) for step in STEPS]
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"gpu-{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.md"
    write_atomically(path, report(f"Everything on {name}", machine, outcomes).encode())
    failed = [outcome.step.title for outcome in outcomes if outcome.status != 0]
    print(f"{path}: {len(outcomes) - len(failed)} of {len(outcomes)} steps passed")
    if failed:
        raise SystemExit(f"benchmarks.gpu: failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
