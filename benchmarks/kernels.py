"""Benchmark of the fused kernels: `python -m benchmarks.kernels`.

Each case runs on the backends of this project and in the implementations that PyTorch offers, in turn, from
the leaves to their gradients, with allocation, autograd and changes of memory format. Writes a table, JSON
and a plot.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import cross_attention, depth_loss, layers
from benchmarks.case import Case
from benchmarks.graphs import capture, capture_one
from benchmarks.machine import Machine, describe_machine
from benchmarks.measure import Spread, interleave, ratio
from benchmarks.memory import peak_memory
from benchmarks.report import Report, table

# Each operation's cases, given the device, the dtype and whether to measure compiled implementations.
OPERATIONS: dict[str, Callable[[str, torch.dtype, bool], Iterator[Case]]] = {
    "cross_attention": cross_attention.cases,
    "edge_aware_loss": depth_loss.cases,
    **layers.CASES,
}
CALLED = "both, called"  # a phase on a GPU; the other phases replay CUDA graphs
FEWEST_ROUNDS, MOST_ROUNDS = 5, 100
STREAMING = "streaming"  # a row of the table: reads and writes as many bytes and computes nothing


class Run:
    """One implementation of a case, to be called forward and backward alternately."""

    def __init__(self, case: Case, name: str) -> None:
        self._case, self._implementation = case, case.implementations[name]
        self._outputs: Sequence[Tensor] = ()

    def forward(self) -> None:
        self._outputs = self._implementation()

    def backward(self) -> None:
        torch.autograd.grad(self._outputs, self._case.leaves, self._case.grads)
        self._outputs = ()

    def both(self) -> tuple[Tensor, ...]:
        outputs = self._implementation()
        return (*outputs, *torch.autograd.grad(outputs, self._case.leaves, self._case.grads))


def measure(case: Case, device: str, seconds: float, machine: Machine) -> list[dict[str, Any]]:
    """One row of results per implementation and phase."""
    runs = {name: Run(case, name) for name in case.implementations}
    memory: dict[str, int | None] = {}
    for name, run in runs.items():
        run.both()  # compiles the compiled implementations
        memory[name] = peak_memory(run.both, device)
    start = time.perf_counter()
    for run in runs.values():
        run.both()
    rounds = int(seconds / (time.perf_counter() - start))
    phases: dict[str, Callable[[], object]] = {}
    for name, run in runs.items():
        if device == "cpu":
            phases |= {f"{name} forward": run.forward, f"{name} backward": run.backward}
        else:
            of_forward, of_backward = capture(run)
            phases |= {f"{name} forward": of_forward, f"{name} backward": of_backward}
            phases[f"{name} {CALLED}"] = run.both
    if case.streaming is not None:
        phases[f"{STREAMING} both"] = case.streaming if device == "cpu" else capture_one(case.streaming)
    taken = interleave(phases, min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS), warm_up=1)
    for name in runs:
        pairs = zip(taken[f"{name} forward"], taken[f"{name} backward"], strict=True)
        taken[f"{name} both"] = [forward + backward for forward, backward in pairs]

    ours = next(iter(runs))
    flops = (None, None, None) if case.flops is None else (*case.flops, sum(case.flops))
    forward, backward, both = zip(flops, (*case.traffic, sum(case.traffic)), strict=True)
    work = {"forward": forward, "backward": backward, "both": both, CALLED: both}
    rows = []
    for phase, (operations, traffic) in work.items():
        for name in (*runs, STREAMING):
            if f"{name} {phase}" not in taken:
                continue
            spread = Spread.of(taken[f"{name} {phase}"])
            gflops = None if operations is None else operations / spread.p50 / 1e9
            gbs = traffic / spread.p50 / 1e9
            rows.append(
                {
                    "operation": case.operation,
                    "size": case.size,
                    "phase": phase,
                    "implementation": name,
                    "seconds": asdict(spread),
                    "gflops": gflops,
                    "gbs": gbs,
                    "share_of_peak": None if gflops is None else gflops / machine.gflops,
                    "share_of_copy": gbs / machine.copy_gbs,
                    "peak_bytes": memory.get(name) if phase == "both" else None,
                    "times_ours": asdict(ratio(taken[f"{name} {phase}"], taken[f"{ours} {phase}"])),
                }
            )
    return rows


def section(case: Case, rows: Sequence[dict[str, Any]]) -> str:
    """The results of a case as a Markdown table."""

    def rate(value: float | None, share: float | None) -> str:
        return "" if value is None else f"{value:.1f} ({share:.0%})"

    header = ["", "", "ms (p20 to p80)", "GFLOP/s (of peak)", "GB/s (of copy)", "peak MB", "times ours"]
    lines = []
    for row in rows:
        seconds = row["seconds"]
        milliseconds = Spread(*(1e3 * seconds[p] for p in ("p20", "p50", "p80")))
        lines.append(
            [
                row["phase"],
                row["implementation"],
                f"{milliseconds:.2f}",
                rate(row["gflops"], row["share_of_peak"]),
                rate(row["gbs"], row["share_of_copy"]),
                "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
                f"{Spread(**row['times_ours']):.2f}",
            ]
        )
    return f"## {case.operation}: {case.size}\n\n{table(header, lines)}"


def plot(title: str, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Plot forward and backward of all cases as multiples of our time, one panel per operation."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    both = [row for row in rows if row["phase"] == "both"]
    operations = list(dict.fromkeys(row["operation"] for row in both))
    sizes = [list(dict.fromkeys(r["size"] for r in both if r["operation"] == o)) for o in operations]
    counts = [len(of_operation) for of_operation in sizes]
    figure, panels = plt.subplots(
        len(operations),
        squeeze=False,
        figsize=(9, 1 + len(operations) + 0.9 * sum(counts)),
        height_ratios=counts,
        layout="constrained",
    )
    for axes, operation, of_operation in zip(panels[:, 0], operations, sizes, strict=True):
        chosen = [row for row in both if row["operation"] == operation]
        names = list(dict.fromkeys(row["implementation"] for row in chosen))
        height = 0.8 / len(names)
        for number, name in enumerate(names):
            mine = [row for row in chosen if row["implementation"] == name]
            times = [row["times_ours"] for row in mine]
            spread = [[t["p50"] - t["p20"] for t in times], [t["p80"] - t["p50"] for t in times]]
            places = [of_operation.index(row["size"]) + number * height for row in mine]
            bars = axes.barh(places, [t["p50"] for t in times], height * 0.9, xerr=spread, label=name)
            axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
        axes.set_yticks([i + 0.4 - height / 2 for i in range(len(of_operation))], of_operation, fontsize=8)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(operation, fontsize=9)
        axes.legend(fontsize=8)
        # The ratios span more than an order of magnitude.
        axes.set_xscale("log")
    panels[-1, 0].set_xlabel("time of forward and backward, as a multiple of ours")
    figure.suptitle(title, fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the fused kernels.")
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", choices=devices, default=devices[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--operation", choices=tuple(OPERATIONS), action="append", help="only this one")
    parser.add_argument("--size", default="", help="only sizes with this text in them")
    parser.add_argument("--no_compile", action="store_true", help="leave out compiled implementations")
    parser.add_argument("--seconds", type=float, default=15.0, help="to measure each case for, or longer")
    options = parser.parse_args()

    machine = describe_machine(options.device, getattr(torch, options.dtype))
    about = [
        "Medians with the 20th and 80th percentile. GFLOP/s count the arithmetic that our kernels need, for"
        " every implementation, and GB/s every input and output once; streaming reads and writes as many"
        " bytes and computes nothing. Memory comes from PyTorch's default allocator; train.py sets the heap"
        " up differently, which helps most the implementations that allocate most. Peak memory includes"
        " outputs and gradients. The last column is the ratio to our time within a round; above 1, ours is"
        " faster."
    ]
    if options.device == "cuda":
        about.append(
            "Forward and backward are replays of CUDA graphs, one after the other: the time of the device."
            f' "{CALLED}" is forward and backward called from Python, with dispatch and launches. Data that'
            " fits into the device's cache is in it."
        )
    report = Report(f"kernels-{options.dtype}", machine, f"Kernels in {options.dtype}", about)
    rows: list[dict[str, Any]] = []
    path = None
    for operation in options.operation or OPERATIONS:
        for case in OPERATIONS[operation](
            options.device, getattr(torch, options.dtype), not options.no_compile
        ):
            if options.size not in case.size:
                continue
            print(f"{operation}: {case.size}", file=sys.stderr)
            measured = measure(case, options.device, options.seconds, machine)
            rows += measured
            path = report.add(section(case, measured), {"rows": rows})
    if path is None:
        raise SystemExit(
            f"benchmarks.kernels: no case on {options.device} in {options.dtype} has a size that contains "
            f"{options.size!r}"
        )
    plot(f"{report.title} on {machine.name}", rows, path.with_suffix(".png"))
    print(f"\nsee {path}", file=sys.stderr)


if __name__ == "__main__":
    main()
