"""The CUDA kernels of cross-attention, from their own source on the CPU, under the eyes of the sanitizers.

What they compute is tested with every other backend, in test_cross_attention.py.
"""

from pathlib import Path

import pytest
from cuda_emulated import A100, NOTHING, SOURCE
from emulator import ROOT, Emulator

BARRIER = "__syncthreads();"

# dtype (0 float32, 1 bfloat16, 2 float16), R, N, M, heads, d, dv, max_lag, L, shared memory, keys or not
RUNS = {
    "on chip, float32": (0, 1, 20, 37, 2, 12, 9, -1, 2, A100, 0),
    "on chip, bfloat16, band": (1, 2, 40, 24, 1, 16, 16, 5, 90, A100, 0),
    "on chip, float16, separate": (2, 1, 20, 70, 1, 33, 40, -1, 3, A100, 1),
    "blockwise, float32": (0, 1, 40, 30, 1, 7, 70, -1, 3, NOTHING, 0),
    "blockwise, bfloat16": (1, 1, 20, 100, 2, 16, 72, -1, 60, NOTHING, 0),
    "blockwise, float16, band, separate": (2, 1, 70, 36, 1, 16, 16, 4, 2, NOTHING, 1),
}


@pytest.mark.slow
@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_find_nothing(emulator: Emulator, sanitizer: str) -> None:
    program = emulator.program(SOURCE, sanitizer, "-DPROGRAM")
    for name, arguments in RUNS.items():
        ran = emulator.run(program, *arguments)
        assert (ran.stdout, ran.returncode) == ("written\n", 0), f"{name}: {ran.stderr[:3000]}"
        assert "WARNING: ThreadSanitizer" not in ran.stderr


BARRIERS = [
    (name, index, arguments)
    for name, arguments in {
        "cuda_on_chip.cuh": (1, 1, 40, 100, 1, 16, 16, 5, 90, A100, 0),
        "cuda_blockwise.cuh": (1, 1, 20, 150, 1, 16, 16, -1, 3, NOTHING, 0),
    }.items()
    for index in range((ROOT / "csrc/cross_attention" / name).read_text().count(BARRIER))
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "index", "arguments"), BARRIERS)
def test_every_barrier_is_missed(
    emulator: Emulator, tmp_path: Path, name: str, index: int, arguments: tuple[int, ...]
) -> None:
    parts = (ROOT / "csrc/cross_attention" / name).read_text().split(BARRIER)
    without = BARRIER.join(parts[: index + 1]) + BARRIER.join(parts[index + 1 :])
    (tmp_path / "cross_attention").mkdir()
    (tmp_path / "cross_attention" / name).write_text(without)
    program = emulator.program(SOURCE, "thread", "-DPROGRAM", f"-I{tmp_path}")
    ran = emulator.run(program, *arguments)
    assert "ThreadSanitizer: data race" in ran.stderr
    assert name in ran.stderr
