"""The machine of a benchmark, and its measured limits."""

import os
import platform
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch

from benchmarks.measure import Repeated, Spread, interleave


@dataclass(frozen=True)
class Machine:
    """Processor, software and measured limits of a machine."""

    processor: str
    threads: int | None  # None on a GPU
    torch: str
    gflops: float  # measured, as `peak` says
    peak: str
    copy_gbs: float  # measured: bytes read and written by a copy beyond the caches

    @property
    def name(self) -> str:
        """The processor, and the number of threads on a CPU."""
        return self.processor if self.threads is None else f"{self.processor}, {self.threads} threads"

    @property
    def slug(self) -> str:
        """The processor's name as part of a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.processor.lower()).strip("-")

    def as_dict(self) -> dict[str, str | int | float | None]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.name}, torch {self.torch}; "
            f"measured peak {self.gflops:.0f} GFLOP/s ({self.peak}), copy {self.copy_gbs:.1f} GB/s"
        )


@cache
def describe_machine(device: str = "cpu", dtype: torch.dtype = torch.float32) -> Machine:
    """Describe `device`, and measure its peaks.

    Of a CPU with fused multiply-adds in float32 on as many threads as torch uses; of a GPU with a large
    matrix product in `dtype`.
    """
    if device == "cuda":
        gflops, copy_gbs = _measure_gpu(dtype)
        peak = f"matrix product, {str(dtype).removeprefix('torch.')}"
        return Machine(torch.cuda.get_device_name(), None, torch.__version__, gflops, peak, copy_gbs)
    threads = torch.get_num_threads()
    gflops, copy_gbs = _measure_cpu(threads)
    return Machine(processor_name(), threads, torch.__version__, gflops, "FMA, float32", copy_gbs)


def processor_name() -> str:
    """Name of the processor with its family and model, since some names do not tell the generation."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()

    def field(name: str) -> str:
        found = re.search(rf"^{name}\s*: (.*)$", text, re.MULTILINE)
        return found[1].strip() if found else ""

    name = field("model name") or platform.machine()
    flags = set(field("flags").split())
    widest = next((isa for isa in ("avx512f", "avx2") if isa in flags), "no avx2")
    if re.search(r"\d", name):
        return f"{name} ({widest})"
    return f"{name} family {field('cpu family')} model {field('model')} ({widest})"


def _measure_cpu(threads: int) -> tuple[float, float]:
    source = Path(__file__).with_name("peaks.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peaks"
        compiler = os.environ.get("CC", "gcc")
        # Compiled and run on the same machine, so native instructions are safe.
        flags = ["-O2", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-ffp-contract=fast"]
        subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        printed = subprocess.run(
            [str(program)], check=True, capture_output=True, text=True, env=environment
        ).stdout
    gflops, copy_gbs = map(float, printed.split())
    return gflops, copy_gbs


def _measure_gpu(dtype: torch.dtype) -> tuple[float, float]:
    size, elements, calls = 8192, 1 << 28, 5
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    source = torch.randn(elements, device="cuda")
    target = torch.empty_like(source)
    functions = {
        "product": Repeated(lambda: torch.mm(a, b), calls),
        "copy": Repeated(lambda: target.copy_(source), calls),
    }
    seconds = {name: Spread.of(taken).p50 for name, taken in interleave(functions, rounds=9).items()}
    return 2 * size**3 / seconds["product"] / 1e9, 2 * source.nbytes / seconds["copy"] / 1e9
