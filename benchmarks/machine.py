"""The machine that a benchmark ran on, and the measured limits that its results are shares of."""

import os
import platform
import re
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import torch


@dataclass(frozen=True)
class Machine:
    """What a reader must know about where the figures come from."""

    processor: str
    threads: int
    torch: str
    gflops: float  # measured: independent fused multiply-adds, float32, all threads
    copy_gbs: float  # measured: bytes read and written by a copy beyond the caches, all threads

    @property
    def slug(self) -> str:
        """The processor's name as part of a file name."""
        return re.sub(r"[^a-z0-9]+", "-", self.processor.lower()).strip("-")

    def as_dict(self) -> dict[str, str | int | float]:
        return asdict(self)

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.threads} threads, torch {self.torch}; "
            f"measured peak {self.gflops:.0f} GFLOP/s (FMA, float32), copy {self.copy_gbs:.1f} GB/s"
        )


@cache
def describe_machine() -> Machine:
    """This machine, its peaks measured now on as many threads as torch uses."""
    gflops, copy_gbs = _measure_peaks(torch.get_num_threads())
    return Machine(processor_name(), torch.get_num_threads(), torch.__version__, gflops, copy_gbs)


def processor_name() -> str:
    """The processor's name with what tells its generation: some name only their family."""
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


def _measure_peaks(threads: int) -> tuple[float, float]:
    source = Path(__file__).with_name("peaks.c")
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "peaks"
        compiler = os.environ.get("CC", "gcc")
        # Only ever run where it was compiled, so it may use all that this processor has.
        flags = ["-O2", "-march=native", "-mprefer-vector-width=512", "-fopenmp", "-ffp-contract=fast"]
        subprocess.run([compiler, *flags, str(source), "-o", str(program)], check=True)
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        printed = subprocess.run(
            [str(program)], check=True, capture_output=True, text=True, env=environment
        ).stdout
    gflops, copy_gbs = map(float, printed.split())
    return gflops, copy_gbs
