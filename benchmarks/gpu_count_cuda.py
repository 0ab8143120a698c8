"""Count what CUDA kernels move and multiply: their own sources, run on the CPU by the tests' emulation."""

import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "tests"))
from emulator import Counted, Emulator  # noqa: E402

# What a block may use of an RTX 4090's: the kernels chosen there are those of larger cards too.
SHARED_MEMORY = 99 << 10
BFLOAT16 = 1


class CudaCounter:
    """Counts of one forward and backward pass, of all its launches."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._emulator = Emulator(Path(self._folder.name))

    def cross_attention(
        self, r: int, n: int, heads: int, d: int, dv: int, reach: int | None
    ) -> list[Counted]:
        """With shared similarity and a bias of `reach`, or none. Counted at one and two problems of one head,
        for all problems and heads cost the same; and long sequences at three lengths, for tiles of rows and
        tiles of columns make every count a polynomial of the second degree."""

        def run(problems: int, length: int) -> list[Counted]:
            longest = -1 if reach is None else reach
            arguments = (BFLOAT16, problems, length, length, 1, d, dv, -1, longest, SHARED_MEMORY, 0)
            return self._emulator.count(ROOT / "tests/csrc/cross_attention_emulated.cu", *arguments)

        if n <= 128:
            counted = _extrapolate([1, 2], [run(1, n), run(2, n)], r)
        else:
            lengths = [128, 256, 512]
            counted = _extrapolate(lengths, [run(r, length) for length in lengths], n)
        return [_times(launch, heads) for launch in counted]

    def edge_aware_loss(self, images: int, height: int, width: int) -> list[Counted]:
        """With the gradient, of float32 images."""

        def run(count: int) -> list[Counted]:
            return self._emulator.count(ROOT / "tests/csrc/depth_loss_emulated.cu", 0, count, height, width)

        return _extrapolate([1, 2], [run(1), run(2)], images)


def _extrapolate(at: Sequence[int], counted: Sequence[Sequence[Counted]], to: int) -> list[Counted]:
    """The counts at `to`, by the polynomial through those `at` as many places as it has coefficients."""
    results = []
    for launches in zip(*counted, strict=True):
        kernel, _, threads, shared, *_ = astuple(launches[0])
        values = np.array([[x.blocks, x.read, x.first_read, x.written, x.operations] for x in launches])
        fit = np.polynomial.polynomial.polyfit(at, values.astype(np.float64), len(at) - 1)
        blocks, *rest = (round(float(v)) for v in np.array(np.polynomial.polynomial.polyval(to, fit)))
        results.append(Counted(kernel, blocks, threads, shared, *rest))
    return results


def _times(launch: Counted, count: int) -> Counted:
    kernel, blocks, threads, shared, *rest = astuple(launch)
    return Counted(kernel, blocks * count, threads, shared, *(value * count for value in rest))


def demangle(name: str) -> str:
    """The name of a kernel and its template arguments, without namespaces and parameters."""
    told = subprocess.run(["c++filt", name], check=True, capture_output=True, text=True).stdout.strip()
    return re.sub(r"\(.*\)|^void |binaural::|cross_attention::|depth_loss::|gpu::", "", told)
