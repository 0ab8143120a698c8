"""The static report of the GPU kernels, made without a GPU.

    python -m benchmarks.gpu_report

compiles every Triton kernel at the model's shapes for sm_80, sm_90 and sm_100, looks into the CUDA kernels of
the built extension, counts what either moves and multiplies, and writes registers, spills, shared memory,
occupancy, tensor-core instructions, bytes, operations and the roofline's bound into benchmarks/results/.
Times there are bounds from data-sheet peaks, never measurements.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_calls import (
    IMAGES,
    OPERATIONS,
    SHAPES,
    Entry,
    cross_attention_entries,
    edge_aware_loss_entries,
    reach_of,
)
from benchmarks.gpu_count_cuda import CudaCounter, demangle
from benchmarks.gpu_static import ARCHITECTURES, GPUS, Compiled, compile_launch, inspect_library
from benchmarks.report import RESULTS, table
from binaural import kernels
from binaural.atomic_files import write_atomically
from binaural.kernels.dispatch.launch import Launch


def counts(operation: str) -> dict[str, list[dict[str, int]]]:
    """Bytes and operations of every launch, counted in a process of its own that interprets them."""
    command = [sys.executable, "-m", "benchmarks.gpu_count", operation]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def row(
    operation: str,
    entry: Entry,
    kernel: str,
    arch: int,
    warps: int,
    compiled: Compiled,
    moved: dict[str, int],
) -> dict[str, Any]:
    """What is known of one launch on one architecture."""
    gpu = GPUS[arch]
    return {
        "operation": operation,
        "call": entry.label,
        "kernel": kernel,
        "architecture": arch,
        "warps": warps,
        **asdict(compiled),
        "occupancy": gpu.occupancy(compiled.registers, compiled.shared_memory, warps),
        **moved,
        "least_bytes": entry.least_bytes,
    }


def kernel_name(launch: Launch) -> str:
    """The kernel's, and for which ear it is launched, if it is for one."""
    ear = {1: " (left)", -1: " (right)"}.get(launch.constants.get("SIGN", 0), "")
    return launch.kernel.fn.__name__ + ear


def triton_rows(architectures: Sequence[int]) -> Iterator[dict[str, Any]]:
    """One row for each launch of each call and each architecture."""
    for operation, entries in OPERATIONS.items():
        counted = counts(operation)
        for entry in entries():
            launches = entry.launches(torch.device("meta"), entry.count)
            for launch, moved in zip(launches, counted[entry.label], strict=True):
                if launch is launches[-1]:
                    moved["summed"] = entry.summed_bytes
                for arch in architectures:
                    compiled, warps = compile_launch(launch, arch)
                    yield row(operation, entry, kernel_name(launch), arch, warps, compiled, moved)


def compiled_rows(dtype: torch.dtype, architectures: Sequence[int]) -> Iterator[dict[str, Any]]:
    """What the compiler makes of the attention kernels for the same calls in another precision."""
    for entry in cross_attention_entries(dtype):
        for launch in entry.launches(torch.device("meta"), entry.count):
            for arch in architectures:
                compiled, _ = compile_launch(launch, arch)
                kernel = kernel_name(launch)
                yield {"call": entry.label, "kernel": kernel, "architecture": arch, **asdict(compiled)}


def cuda_rows(
    architectures: Sequence[int], found: dict[tuple[str, int], Compiled]
) -> Iterator[dict[str, Any]]:
    """One row for each launch of each call and each architecture, of the kernels in the extension."""
    counter = CudaCounter()
    calls = []
    entries = cross_attention_entries()
    for shape in SHAPES:
        forward, *backward = counter.cross_attention(*shape, reach_of(shape[1]))
        calls += [("cross_attention", next(entries), [forward]), ("cross_attention", next(entries), backward)]
    *forward, backward = counter.edge_aware_loss(*IMAGES)
    for entry, launches in zip(edge_aware_loss_entries(), (forward, [backward]), strict=True):
        calls.append(("edge_aware_loss", entry, launches))
    for operation, entry, launches in calls:
        for launch in launches:
            for arch in architectures:
                compiled = found[launch.kernel, arch]
                # What the launch asks for comes to what the kernel has by itself.
                shared = compiled.shared_memory + launch.shared_memory
                compiled = replace(compiled, shared_memory=shared)
                moved = {
                    name: getattr(launch, name) for name in ("read", "first_read", "written", "operations")
                }
                name = demangle(launch.kernel)
                yield row(operation, entry, name, arch, launch.threads // 32, compiled, moved)


def launches_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each launch and architecture; bytes and the bound stand for the whole call."""
    header = (
        "call", "kernel", "sm", "warps", "registers", "spills", "shared KB", "occupancy",
        "tensor-core instr.", "MB moved", "read again", "of least", "GFLOP", "call's bound µs",
    )  # fmt: skip
    lines = []
    for r in rows:
        call = [x for x in rows if all(x[k] == r[k] for k in ("operation", "call", "architecture"))]
        moved = [x["first_read"] + x["written"] for x in call]
        total = sum(moved) + sum(x.get("summed", 0) for x in call)
        gpu = GPUS[r["architecture"]]
        # What one block reads after another is found in the L2 cache, at best.
        memory = min(total, r["least_bytes"]) / gpu.bandwidth * 1e6
        arithmetic = sum(x["operations"] for x in call) / gpu.flops * 1e6
        lines.append(
            (
                r["call"], r["kernel"], r["architecture"], r["warps"], r["registers"], r["spills"],
                f"{r['shared_memory'] / 1024:.1f}", f"{r['occupancy']:.0%}", r["tensor_core"],
                f"{(r['first_read'] + r['written']) / 1e6:.2f}", f"{r['read'] / max(1, r['first_read']):.2f}",
                f"{total / r['least_bytes']:.2f}", f"{r['operations'] / 1e9:.2f}",
                f"{max(memory, arithmetic):.1f} ({'memory' if memory > arithmetic else 'arithmetic'})",
            )
        )  # fmt: skip
    return table(header, lines)


def compiled_table(rows: Sequence[dict[str, Any]]) -> str:
    """One line for each launch and architecture; launches that are alike have one together."""
    header = ("call", "kernel", "sm", "registers", "spills", "shared KB", "tensor-core instr.")
    lines = [
        (
            r["call"], r["kernel"], r["architecture"], r["registers"], r["spills"],
            f"{r['shared_memory'] / 1024:.1f}", r["tensor_core"],
        )
        for r in rows
    ]  # fmt: skip
    return table(header, list(dict.fromkeys(lines)))


def spilling(rows: Sequence[dict[str, Any]]) -> str:
    """In one line, which of these kernels spill registers."""
    names = [f"{r['kernel']} for sm_{r['architecture']}" for r in rows if r["spills"] or r["stack"]]
    return (
        "none spills a register" if not names else f"these spill registers: {', '.join(dict.fromkeys(names))}"
    )


def without_tensor_cores(rows: Sequence[dict[str, Any]]) -> str:
    """In one line, which of these attention kernels multiply matrices without tensor cores."""
    names = {r["kernel"] for r in rows if multiplies(r) and not r["tensor_core"]}
    return "all use the tensor cores" if not names else f"these do not: {', '.join(sorted(names))}"


def multiplies(row: dict[str, Any]) -> bool:
    """Whether the kernel does: as counted, or as is known of it where nothing was."""
    return row["operations"] > 0 if "operations" in row else row["kernel"] != "sum_outputs"


ABOUT = """\
No time in this report was measured. Bounds are the larger of bytes over bandwidth and operations over peak,
with data-sheet values ({peaks}). Bytes and operations are counted from the kernels' own loads, stores and
products, run on the CPU. *MB moved* counts what a block reads for the first time and all that it writes;
*read again* is how often it reads a byte in all, which the L1 cache serves. *Of least* compares the whole
call with reading every operand and writing every result once; operands of a backward are q, v, o, the
gradients of the outputs, the statistics and the bias, of which Triton's kernel for short problems leaves one
o out, or both. *Spills* are instructions that move registers to or from memory, *tensor-core instr.* those
found in the machine code."""

OCCUPANCY = """\
Occupancy is low by design where a kernel keeps similarities in registers: a block on the time axis computes
for long on what it has loaded, every operand once, while other blocks of the same multiprocessor load.
Shared memory holds the operands that several warps read and, in CUDA C++, softmax weights in the inputs' own
precision, between the warps that own their rows and those that sum over them."""


def main() -> None:
    parser = argparse.ArgumentParser(description="Static report of the GPU kernels.")
    parser.add_argument(
        "--architectures", type=int, nargs="+", default=ARCHITECTURES, choices=ARCHITECTURES, metavar="SM",
        help="of 80, 90 and 100",
    )  # fmt: skip
    architectures = tuple(parser.parse_args().architectures)
    libraries = sorted(Path(kernels.__file__).parent.glob("_C*.so"))
    found = inspect_library(libraries[-1]) if libraries else {}
    if not found:
        raise SystemExit("benchmarks.gpu_report: the extension is not built with CUDA kernels (make setup)")
    cuda = list(cuda_rows(architectures, found))
    every = [
        {"kernel": demangle(name), "architecture": arch, **asdict(c)}
        for (name, arch), c in sorted(found.items())
    ]
    triton = list(triton_rows(architectures))
    float16, float32 = (list(compiled_rows(dtype, architectures)) for dtype in (torch.float16, torch.float32))
    peaks = "; ".join(
        f"sm_{a}: {GPUS[a].name}, {GPUS[a].flops / 1e12:.0f} TFLOP/s, {GPUS[a].bandwidth / 1e12:.2f} TB/s"
        for a in architectures
    )

    def of(rows: list[dict[str, Any]], operation: str) -> list[dict[str, Any]]:
        return [r for r in rows if r["operation"] == operation]

    attention = "bfloat16, shared similarity, a bias of every lag (none on the dense plane)"
    text = "\n\n".join(
        [
            "# GPU kernels, seen by the compiler",
            ABOUT.format(peaks=peaks),
            OCCUPANCY,
            f"- Triton, bfloat16: {spilling(triton)}; of those that multiply, "
            f"{without_tensor_cores(triton)}.\n"
            f"- Triton, float16: {spilling(float16)}; of those that multiply, "
            f"{without_tensor_cores(float16)}.\n"
            f"- Triton, float32: {spilling(float32)}; of those that multiply, "
            f"{without_tensor_cores(float32)}.\n"
            f"- CUDA C++ at these sizes: {spilling(cuda)}; of those that multiply, "
            f"{without_tensor_cores(cuda)}.\n"
            f"- All {len(found)} kernels of the extension: {spilling(every)}.",
            f"## Cross-attention in Triton: {attention}, fixed configuration",
            launches_table(of(triton, "cross_attention")),
            "## Cross-attention in Triton: float16, the same calls",
            compiled_table(float16),
            "## Cross-attention in Triton: float32, the same calls, 64 channels of the values at a time",
            compiled_table(float32),
            f"## Cross-attention in CUDA C++: {attention}",
            launches_table(of(cuda, "cross_attention")),
            "## Depth loss in Triton: float32, with its gradient",
            launches_table(of(triton, "edge_aware_loss")),
            "## Depth loss in CUDA C++: float32, with its gradient",
            launches_table(of(cuda, "edge_aware_loss")),
        ]
    )
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "gpu-static.md"
    write_atomically(path, (text + "\n").encode())
    content = {
        "peaks": {a: asdict(GPUS[a]) for a in architectures},
        "triton": triton,
        "triton_float16": float16,
        "triton_float32": float32,
        "cuda": cuda,
        "extension": every,
    }
    write_atomically(path.with_suffix(".json"), (json.dumps(content, indent=1) + "\n").encode())
    print(text)


if __name__ == "__main__":
    main()
