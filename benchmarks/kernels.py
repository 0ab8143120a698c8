"""Benchmark of the fused kernels: `python -m benchmarks.kernels`.

Every case runs in our backends and in the forms that PyTorch has to offer, in turn, from the leaves to their
gradients: allocation, autograd and changes of layout included. Writes a table, JSON and a plot.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import cross_attention
from benchmarks.case import Case
from benchmarks.machine import Machine, describe_machine
from benchmarks.measure import Spread, interleave, ratio
from benchmarks.memory import peak_memory
from benchmarks.report import table, write_report

# Each operation's cases, given the device, the dtype and whether compiled forms are wanted.
OPERATIONS: dict[str, Callable[[str, torch.dtype, bool], Iterator[Case]]] = {
    "cross_attention": cross_attention.cases,
}
PHASES = ("forward", "backward", "both")
FEWEST_ROUNDS, MOST_ROUNDS = 5, 100


class Run:
    """One implementation of a case; forward and backward are called in turn."""

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
    memory = {name: peak_memory(run.both, device) for name, run in runs.items()}
    start = time.perf_counter()
    for run in runs.values():
        run.both()
    rounds = int(seconds / (time.perf_counter() - start))
    phases = {f"{name} {phase}": getattr(run, phase) for name, run in runs.items() for phase in PHASES[:2]}
    taken = interleave(phases, min(max(rounds, FEWEST_ROUNDS), MOST_ROUNDS))
    for name in runs:
        pairs = zip(taken[f"{name} forward"], taken[f"{name} backward"], strict=True)
        taken[f"{name} both"] = [forward + backward for forward, backward in pairs]

    ours = next(iter(runs))
    work = zip(PHASES, (*case.flops, sum(case.flops)), (*case.traffic, sum(case.traffic)), strict=True)
    rows = []
    for phase, flops, traffic in work:
        for name in runs:
            spread = Spread.of(taken[f"{name} {phase}"])
            gflops, gbs = flops / spread.p50 / 1e9, traffic / spread.p50 / 1e9
            rows.append(
                {
                    "operation": case.operation,
                    "size": case.size,
                    "phase": phase,
                    "implementation": name,
                    "seconds": asdict(spread),
                    "gflops": gflops,
                    "gbs": gbs,
                    "share_of_fma_peak": flops / spread.p50 / 1e9 / machine.gflops
                    if device == "cpu"
                    else None,
                    "share_of_copy": traffic / spread.p50 / 1e9 / machine.copy_gbs
                    if device == "cpu"
                    else None,
                    "peak_bytes": memory[name] if phase == "both" else None,
                    "times_ours": asdict(ratio(taken[f"{name} {phase}"], taken[f"{ours} {phase}"])),
                }
            )
    return rows


def section(case: Case, rows: Sequence[dict[str, Any]]) -> str:
    """The case's results as a table to read."""

    def share(value: float | None) -> str:
        return "" if value is None else f" ({value:.0%})"

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
                f"{row['gflops']:.1f}{share(row['share_of_fma_peak'])}",
                f"{row['gbs']:.1f}{share(row['share_of_copy'])}",
                "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}",
                f"{Spread(**row['times_ours']):.2f}",
            ]
        )
    return f"## {case.operation}: {case.size}\n\n{table(header, lines)}"


def plot(title: str, rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Forward and backward of every case, as multiples of ours."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    both = [(f"{row['operation']}\n{row['size']}", row) for row in rows if row["phase"] == "both"]
    cases = list(dict.fromkeys(case for case, _ in both))
    names = list(dict.fromkeys(row["implementation"] for _, row in both))
    height = 0.8 / len(names)
    figure, axes = plt.subplots(figsize=(9, 1 + 1.1 * len(cases)), layout="constrained")
    for number, name in enumerate(names):
        chosen = [
            (cases.index(case), row["times_ours"]) for case, row in both if row["implementation"] == name
        ]
        middle = [times["p50"] for _, times in chosen]
        spread = [[t["p50"] - t["p20"] for _, t in chosen], [t["p80"] - t["p50"] for _, t in chosen]]
        places = [place + number * height for place, _ in chosen]
        bars = axes.barh(places, middle, height * 0.9, xerr=spread, label=name)
        axes.bar_label(bars, fmt="%.2f", padding=2, fontsize=7)
    axes.set_yticks([place + 0.4 - height / 2 for place in range(len(cases))], cases, fontsize=8)
    axes.invert_yaxis()
    axes.axvline(1, color="black", linewidth=0.8)
    axes.set_xlabel("time of forward and backward, as a multiple of ours")
    axes.set_title(title, fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description="Benchmark of the fused kernels.")
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", choices=devices, default=devices[0])
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"), default="float32")
    parser.add_argument("--operation", choices=tuple(OPERATIONS), action="append", help="only this one")
    parser.add_argument("--size", default="", help="only sizes that contain this text")
    parser.add_argument("--no_compile", action="store_true", help="leave out compiled forms, slow to build")
    parser.add_argument("--seconds", type=float, default=15.0, help="to measure each case for, or longer")
    options = parser.parse_args()

    machine = describe_machine()
    if options.device == "cuda":
        machine = replace(machine, processor=torch.cuda.get_device_name())
    rows: list[dict[str, Any]] = []
    sections = [
        "Medians with the 20th and 80th percentile. GFLOP/s count the arithmetic that our kernels need, for"
        " every form, and GB/s every input and output once. Peak memory includes outputs and gradients. The"
        " last column is the ratio to ours within a round; above 1, ours is faster."
    ]
    for operation in options.operation or OPERATIONS:
        for case in OPERATIONS[operation](
            options.device, getattr(torch, options.dtype), not options.no_compile
        ):
            if options.size not in case.size:
                continue
            print(f"{operation}: {case.size}", file=sys.stderr)
            measured = measure(case, options.device, options.seconds, machine)
            rows += measured
            sections.append(section(case, measured))
    title = f"Kernels in {options.dtype}"
    path = write_report(f"kernels-{options.dtype}", machine, title, sections, {"rows": rows})
    plot(f"{title} on {machine.processor}, {machine.threads} threads", rows, path.with_suffix(".png"))
    print(path.read_text())


if __name__ == "__main__":
    main()
