"""Benchmark of a training step: `python -m benchmarks.training_step`.

Forward, loss, backward and optimiser of our network, of the U-Net with identical blocks on the same fast path
and as people usually write it, and of attention as first written; in turn, so that ratios within a turn
compare. Writes a table, JSON and a plot.
"""

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import Machine, describe_machine
from benchmarks.measure import Spread, interleave, ratio
from benchmarks.memory import peak_memory
from benchmarks.parts import PARTS, measure_parts
from benchmarks.report import Report, table
from benchmarks.step_networks import (
    FAST_UNET,
    NAIVE_PLANE,
    NAIVE_TIME,
    OURS,
    OURS_ALL_SKIPS,
    OURS_LEAN,
    SYSTEMS,
    USUAL_UNET,
    Problem,
    Setting,
    Step,
)
from binaural.device import choose_precision
from binaural.training.allocator import set_up_heap

FIRST = Problem(32, 128, 4)
# By device. The second is large enough to fill a GPU.
PROBLEMS = {"cpu": (FIRST, Problem(64, 256, 1)), "cuda": (FIRST, Problem(64, 256, 16))}
COMPARED = (OURS, OURS_LEAN, OURS_ALL_SKIPS, FAST_UNET, USUAL_UNET)
NAIVE = (NAIVE_PLANE, NAIVE_TIME)
# How cost grows, each from the first problem: batch, image size, base channels.
GROWTH = {
    "batch": [replace(FIRST, batch=batch) for batch in (1, 2, 4, 8)],
    "size": [replace(FIRST, size=size) for size in (64, 128, 192)],
    "base_channels": [replace(FIRST, base_channels=base) for base in (16, 32, 48)],
}
FEWEST_ROUNDS, MOST_ROUNDS, NAIVE_ROUNDS, PART_STEPS = 5, 30, 2, 3


def measure(problem: Problem, setting: Setting, seconds: float) -> list[dict[str, Any]]:
    """One row of results per system, ours first."""
    steps = {name: Step(SYSTEMS[name], problem, setting) for name in COMPARED}
    for step in steps.values():
        step()
    taken = interleave(steps, rounds_within(seconds, steps))
    rows: list[dict[str, Any]] = []
    for name, step in steps.items():
        row = {
            "problem": str(problem),
            "system": name,
            "flops": step.count_flops(),
            "state_bytes": step.state_bytes(),
            "peak_bytes": measure_peak(step),
            "parts": measure_parts(step, PART_STEPS) if step.forward is step.network else None,
        }
        rows.append(row | compare(problem, taken[name], taken))
    return rows


def measure_peak(step: Step) -> int | None:
    """As `peak_memory`, and leaves the heap as training has it."""
    peak = peak_memory(step, step.setting.device)
    set_up_heap()  # again: that has trimmed it
    return peak


def measure_naive(problem: Problem, setting: Setting, name: str) -> dict[str, Any]:
    """A row of one naive system, in turn with ours."""
    steps = {chosen: Step(SYSTEMS[chosen], problem, setting) for chosen in (name, OURS)}
    steps[name]()
    row = {
        "problem": str(problem),
        "system": name,
        "flops": None,
        "state_bytes": steps[name].state_bytes(),
        "peak_bytes": measure_peak(steps[name]),
        "parts": None,
    }
    steps[OURS]()
    taken = interleave(steps, NAIVE_ROUNDS, warm_up=0)
    return row | compare(problem, taken[name], taken)


def compare(problem: Problem, own: list[float], taken: dict[str, list[float]]) -> dict[str, Any]:
    """Time of a step, and its ratios to those of the others within a round."""
    spread = Spread.of(own)
    return {
        "seconds": asdict(spread),
        "samples_per_second": problem.batch / spread.p50,
        "over": {other: asdict(ratio(own, seconds)) for other, seconds in taken.items()},
    }


def rounds_within(seconds: float, steps: dict[str, Step]) -> int:
    start = time.perf_counter()
    for step in steps.values():
        step()
    return min(max(int(seconds / (time.perf_counter() - start)), FEWEST_ROUNDS), MOST_ROUNDS)


def grow(setting: Setting, seconds: float) -> list[dict[str, Any]]:
    """Ours and the U-Net on the fast path, over sizes."""
    rows = []
    for along, problems in GROWTH.items():
        for problem in problems:
            print(f"growth: {problem}", file=sys.stderr)
            steps = {name: Step(SYSTEMS[name], problem, setting) for name in (OURS, OURS_LEAN, FAST_UNET)}
            taken = interleave(steps, rounds_within(seconds / 3, steps), warm_up=1)
            for name in steps:
                row = {"along": along, **asdict(problem), "system": name}
                rows.append(row | compare(problem, taken[name], taken))
            gc.collect()
    return rows


def results_section(rows: Sequence[dict[str, Any]], machine: Machine) -> str:
    header = [
        "",
        "ms (p20 to p80)",
        "samples/s",
        "GFLOP",
        f"GFLOP/s (of {machine.peak})",
        "peak GB",
        "ours / it",
        "lean / it",
    ]
    by_name = {row["system"]: row for row in rows}
    lines = []
    for name, row in by_name.items():
        middle = row["seconds"]["p50"]

        def over(which: str, name: str = name) -> str:
            """Spread of `which` over this system, from the row that was measured in turn with it."""
            if name in by_name[which]["over"]:
                return f"{Spread(**by_name[which]['over'][name]):.3f}"
            times = by_name[name]["over"].get(which)
            return "" if times is None else f"1 / {Spread(**times):.1f}"

        milliseconds = Spread(*(1e3 * row["seconds"][p] for p in ("p20", "p50", "p80")))
        peak = "" if row["peak_bytes"] is None else f"{(row['peak_bytes'] + row['state_bytes']) / 1e9:.2f}"
        arithmetic = speed = ""
        if row["flops"] is not None:
            gflops = row["flops"] / 1e9 / middle
            arithmetic = f"{row['flops'] / 1e9:.1f}"
            speed = f"{gflops:.0f} ({gflops / machine.gflops:.0%})"
        lines.append(
            [
                name,
                f"{milliseconds:.0f}",
                f"{row['samples_per_second']:.2f}",
                arithmetic,
                speed,
                peak,
                over(OURS),
                over(OURS_LEAN),
            ]
        )
    work = by_name[OURS]["flops"] / by_name[FAST_UNET]["flops"]
    time_ratio = by_name[OURS]["over"][FAST_UNET]["p50"]
    text = (
        f"Ours needs {work:.3f} x the arithmetic of the U-Net, and on the same fast path "
        f"{time_ratio:.3f} x its time: {time_ratio / work:.3f} x what arithmetic explains."
    )
    return f"## {rows[0]['problem']}\n\n{table(header, lines)}\n\n{text}"


def parts_section(rows: Sequence[dict[str, Any]]) -> str:
    """Where the time goes, milliseconds and share."""
    shown = [row for row in rows if row["parts"]]
    lines = []
    for part in PARTS:
        cells = [
            f"{1e3 * row['parts'][part]:.1f} ({row['parts'][part] / sum(row['parts'].values()):.1%})"
            for row in shown
        ]
        lines.append([part, *cells])
    return table(["ms (share)", *(row["system"] for row in shown)], lines)


def growth_section(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for ours, lean, unet in zip(rows[0::3], rows[1::3], rows[2::3], strict=True):
        problem = Problem(ours["base_channels"], ours["size"], ours["batch"])
        ratios = [f"{Spread(**row['over'][FAST_UNET]):.3f}" for row in (ours, lean)]
        times = [f"{1e3 * row['seconds']['p50']:.0f}" for row in (ours, lean, unet)]
        lines.append([ours["along"], problem, *times, *ratios])
    header = ["along", "", "ours, ms", "lean, ms", "U-Net, ms", "ours / U-Net", "lean / U-Net"]
    return f"## How cost grows\n\nOn the same fast path.\n\n{table(header, lines)}"


def plot(title: str, rows: Sequence[dict[str, Any]], growth: Sequence[dict[str, Any]], path: Path) -> None:
    """Times of the systems at each problem, and growth along each size."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    problems = list(dict.fromkeys(row["problem"] for row in rows))
    alongs = list(dict.fromkeys(row["along"] for row in growth))
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    for axis, problem in zip(axes[0], problems, strict=False):
        chosen = [row for row in rows if row["problem"] == problem]
        bars = axis.barh([row["system"] for row in chosen], [row["seconds"]["p50"] for row in chosen])
        axis.bar_label(bars, fmt="%.3f", padding=2, fontsize=7)
        axis.margins(x=0.15)
        axis.invert_yaxis()
        axis.set_title(problem, fontsize=9)
        axis.set_xlabel("seconds per step")
    for axis in axes[0][len(problems) :]:
        axis.axis("off")
    for axis, along in zip(axes[1], alongs, strict=False):
        for name in (OURS, OURS_LEAN, FAST_UNET):
            chosen = [row for row in growth if row["along"] == along and row["system"] == name]
            axis.plot(
                [row[along] for row in chosen],
                [row["seconds"]["p50"] for row in chosen],
                marker="o",
                label=name,
            )
        axis.set_xlabel(along.replace("_", " "))
        axis.set_ylabel("seconds per step")
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=7)
    for axis in axes[1][len(alongs) :]:
        axis.axis("off")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of a training step.")
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", choices=devices, default=devices[0])
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16", "fp16"), default="auto")
    parser.add_argument(
        "--compile",
        action=argparse.BooleanOptionalAction,
        help="the fast path through torch.compile (default: on a GPU, as train.py does)",
    )
    parser.add_argument("--graphs", action="store_true", help="the compiled network replays CUDA graphs")
    parser.add_argument("--seconds", type=float, default=20.0, help="to measure each problem for, or longer")
    parser.add_argument("--problem", default="", help="only problems that contain this text, as 'base 64'")
    parser.add_argument("--no_naive", action="store_true", help="leave out naive attention, slow")
    parser.add_argument("--no_growth", action="store_true", help="leave out how cost grows")
    options = parser.parse_args()
    if options.compile is None:
        options.compile = options.device == "cuda"
    if options.graphs and not options.compile:
        parser.error("--graphs needs --compile: CUDA graphs are captured by torch.compile")
    problems = [problem for problem in PROBLEMS[options.device] if options.problem in str(problem)]
    if not problems:
        raise SystemExit(f"benchmarks.training_step: no problem contains {options.problem!r}")

    set_up_heap()
    precision, _why = choose_precision(options.precision, torch.device(options.device))
    machine = describe_machine(options.device, precision)
    setting = Setting(options.device, precision, options.compile, options.graphs)
    name = str(precision).removeprefix("torch.")
    fast_path = f"channels-last, {name}, with fused kernels, loss and optimiser"
    if options.compile:
        fast_path += ", compiled, with CUDA graphs" if options.graphs else ", compiled"
    about = (
        "A training step: forward, loss, backward, AdamW. Ours is the symmetric network that train.py makes, "
        "with a skip at level 3, and attention there and at level 5; with all skips it has attention at "
        "levels 2 to 5. So has the naive one, with weights for each ear and no view transform. The fast path "
        f"is {fast_path}; as usually written, and naive, is float32, eager, in the default layout. Medians "
        "with the 20th and 80th percentile; ratios are of steps of the same round. GFLOP are those of "
        "torch.utils.flop_counter and, for fused attention, of the kernels' own formula. Peak memory "
        "includes weights and optimiser. All run in one process, which keeps the memory that it frees, on "
        "huge pages."
    )
    title = f"Training step in {name}" + (", compiled" if options.compile else "")
    slug = f"training-step-{name}" + ("-compiled" if options.compile else "")
    if options.graphs:
        title, slug = f"{title}, CUDA graphs", f"{slug}-graphs"
    report = Report(slug, machine, title, [about])
    rows: list[dict[str, Any]] = []
    growth: list[dict[str, Any]] = []
    for problem in problems:
        print(problem, file=sys.stderr)
        measured, too_large = measure(problem, setting, options.seconds), []
        gc.collect()
        if not options.no_naive:
            for naive in NAIVE:
                print(f"{problem}: {naive}", file=sys.stderr)
                try:
                    measured.append(measure_naive(problem, setting, naive))
                except torch.OutOfMemoryError:
                    too_large.append(f"{naive} does not fit into the memory of {machine.processor}.")
                gc.collect()
        rows += measured
        parts = [] if options.compile else [parts_section(measured)]
        section = "\n\n".join([results_section(measured, machine), *too_large, *parts])
        path = report.add(section, {"rows": rows, "growth": growth})
    if not options.no_growth:
        growth += grow(setting, options.seconds)
        report.add(growth_section(growth), {"rows": rows, "growth": growth})
    plot(f"{title} on {machine.name}", rows, growth, path.with_suffix(".png"))
    print(f"\nsee {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
