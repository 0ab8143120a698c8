"""The static report of the GPU kernels, made without a GPU.

    python -m benchmarks.gpu_report

compiles every Triton kernel at the model's shapes for sm_80, sm_90 and sm_100, looks into the CUDA kernels of
the built extension, and writes registers, spills, shared memory, occupancy, tensor-core instructions, bytes
moved, operations and the roofline's bound into benchmarks/results/. Times in it are bounds from data-sheet
peaks, never measurements.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

import kernels
from benchmarks.gpu_static import ARCHITECTURES, GPUS, compile_launch, inspect_library
from benchmarks.report import RESULTS, table
from binaural.files import write_atomically

# (R, N = M, heads, d, dv): the time axis at the model's four levels, then the dense plane.
SHAPES = [
    (512, 128, 4, 32, 32),
    (256, 64, 4, 64, 64),
    (128, 32, 8, 64, 64),
    (64, 16, 8, 64, 64),
    (1, 4096, 1, 16, 128),
]
# The lags that the bias of the dense plane covers; on the time axis it covers them all.
PLANE_REACH = 8


@dataclass(frozen=True)
class Entry:
    """One call of an operation: `launches(device)` gives its `Launch`es for tensors there."""

    label: str
    least_bytes: int  # every operand read once, every result written once
    launches: Callable[[torch.device], list[Any]]


def cross_attention_entries() -> Iterator[Entry]:
    """Forward and backward of cross-attention, bfloat16, shared similarity, with a lag bias."""
    for r, n, heads, d, dv in SHAPES:
        label = f"({r}, {n}, {heads}, {d}" + (")" if d == dv else f", dv {dv})")
        reach = n - 1 if n <= 128 else PLANE_REACH
        elements = r * n * heads * 2
        statistics, bias = 4 * elements, 4 * heads * (2 * reach + 1)
        q, v = elements * d * 2, elements * dv * 2

        plan = partial(_plan, shape=(r, n, heads, d, dv), reach=reach)
        yield Entry(f"forward {label}", q + 2 * v + statistics + bias, partial(plan, backward=False))
        # o is not counted: where a problem is on the chip whole it need not be read.
        yield Entry(f"backward {label}", 2 * q + 3 * v + statistics + 2 * bias, partial(plan, backward=True))


def _plan(device: torch.device, shape: tuple[int, ...], reach: int, backward: bool) -> list[Any]:
    from kernels.cross_attention.triton_launch import plan_backward, plan_forward

    r, n, heads, d, dv = shape
    q, v = (torch.zeros(r, n, heads, c, dtype=torch.bfloat16, device=device) for c in (d, dv))
    bias = torch.zeros(heads, 2 * reach + 1, device=device)
    inputs: list[Any] = [q, q, v, v, None, None, bias]
    options: list[Any] = [d**-0.5, None]
    launches, outputs = plan_forward(*[*inputs, *options])
    if not backward:
        return launches
    return plan_backward(*[*outputs[:2], *inputs, *outputs, *options])[0]


# An operation whose kernels are written in Triton enters the report by standing here.
OPERATIONS: dict[str, Callable[[], Iterator[Entry]]] = {"cross_attention": cross_attention_entries}


def counts(operation: str) -> dict[str, list[dict[str, int]]]:
    """Bytes and operations of every launch, counted in a process of its own that interprets them."""
    command = [sys.executable, "-m", "benchmarks.gpu_count", operation]
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def triton_rows(architectures: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """One row for each launch of each call and each architecture."""
    for operation, entries in OPERATIONS.items():
        counted = counts(operation)
        for entry in entries():
            for launch, moved in zip(entry.launches(torch.device("meta")), counted[entry.label], strict=True):
                for arch in architectures:
                    compiled, warps = compile_launch(launch, arch)
                    gpu, total = GPUS[arch], moved["read"] + moved["written"]
                    # What a block reads again is found in the L2 cache, at best.
                    operands = sum(a.nbytes for a in launch.arguments if isinstance(a, torch.Tensor))
                    yield {
                        "operation": operation,
                        "call": entry.label,
                        "kernel": launch.kernel.fn.__name__,
                        "architecture": arch,
                        "warps": warps,
                        **asdict(compiled),
                        "occupancy": gpu.occupancy(compiled.registers, compiled.shared_memory, warps),
                        "bytes": total,
                        "least_bytes": entry.least_bytes,
                        "operations": moved["operations"],
                        "memory_us": min(total, operands) / gpu.bandwidth * 1e6,
                        "compute_us": moved["operations"] / gpu.flops * 1e6,
                    }


def triton_table(rows: list[dict[str, Any]]) -> str:
    header = (
        "call", "kernel", "sm", "warps", "registers", "stack B", "spills", "shared KB", "occupancy",
        "tensor-core instr.", "MB moved", "of least", "GFLOP", "bound µs",
    )  # fmt: skip
    return table(
        header,
        [
            (
                row["call"], row["kernel"], row["architecture"], row["warps"], row["registers"], row["stack"],
                row["spills"], f"{row['shared_memory'] / 1024:.1f}", f"{row['occupancy']:.0%}",
                row["tensor_core"], f"{row['bytes'] / 1e6:.2f}", f"{row['bytes'] / row['least_bytes']:.2f}",
                f"{row['operations'] / 1e9:.2f}",
                f"{max(row['memory_us'], row['compute_us']):.1f}"
                f" ({'memory' if row['memory_us'] > row['compute_us'] else 'arithmetic'})",
            )
            for row in rows
        ],
    )  # fmt: skip


def cuda_rows() -> list[dict[str, Any]]:
    """One row for each CUDA kernel in the built extension and each architecture."""
    libraries = sorted(Path(kernels.__file__).parent.glob("_C*.so"))
    if not libraries:
        return []
    found = inspect_library(libraries[-1])
    return [{"kernel": name, "architecture": arch, **asdict(c)} for (name, arch), c in sorted(found.items())]


def cuda_table(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "The extension is not built, or without CUDA kernels."
    names = ("kernel", "architecture", "registers", "stack", "spills", "shared_memory", "tensor_core")
    return table(names, [[row[name] for name in names] for row in rows])


def main() -> None:
    parser = argparse.ArgumentParser(description="Static report of the GPU kernels.")
    parser.add_argument(
        "--architectures", type=int, nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES, metavar="SM",
        help="of 80, 90 and 100",
    )  # fmt: skip
    architectures = tuple(parser.parse_args().architectures)
    triton, cuda = list(triton_rows(architectures)), cuda_rows()
    peaks = "; ".join(
        f"sm_{a}: {GPUS[a].name}, {GPUS[a].flops / 1e12:.0f} TFLOP/s, {GPUS[a].bandwidth / 1e12:.2f} TB/s"
        for a in architectures
    )
    text = "\n\n".join(
        [
            "# GPU kernels, seen by the compiler",
            "No time in this report was measured. Bounds are the larger of bytes, each operand once, over "
            f"bandwidth and operations over peak, with data-sheet values ({peaks}). Bytes and operations are "
            "counted from the kernels' own loads, stores and products.",
            "## Triton, bfloat16, shared similarity, fixed configuration",
            triton_table(triton),
            "## CUDA kernels in the extension",
            cuda_table(cuda),
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "gpu-static.md"
    write_atomically(path, (text + "\n").encode())
    content = {"peaks": {a: asdict(GPUS[a]) for a in architectures}, "triton": triton, "cuda": cuda}
    write_atomically(path.with_suffix(".json"), (json.dumps(content, indent=1) + "\n").encode())
    print(path)


if __name__ == "__main__":
    main()
