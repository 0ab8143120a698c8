"""The CUDA kernels of the depth loss, from their own source on the CPU, under the eyes of the sanitizers.

What they compute is tested with every other backend, in test_depth_loss.py.
"""

from pathlib import Path

import pytest
from depth_loss_emulated import SOURCE
from emulator import ROOT, Emulator

# dtype (0 float32, 1 bfloat16, 2 float16), B, H, W
RUNS = [(0, 1, 40, 35), (1, 1, 33, 7), (2, 2, 3, 34), (0, 1, 32, 32)]
KERNELS = ROOT / "csrc/depth_loss/cuda_kernel.cuh"
BARRIER = "__syncthreads();"


@pytest.mark.parametrize("sanitizer", ["address", "thread"])
def test_sanitizers_find_nothing(emulator: Emulator, sanitizer: str) -> None:
    program = emulator.program(SOURCE, sanitizer, "-DPROGRAM")
    for arguments in RUNS:
        ran = emulator.run(program, *arguments)
        assert (ran.stdout, ran.returncode) == ("written\n", 0), f"{arguments}: {ran.stderr[:3000]}"
        assert "WARNING: ThreadSanitizer" not in ran.stderr


@pytest.mark.slow
@pytest.mark.parametrize("index", range(KERNELS.read_text().count(BARRIER)))
def test_every_barrier_is_missed(emulator: Emulator, tmp_path: Path, index: int) -> None:
    parts = KERNELS.read_text().split(BARRIER)
    without = BARRIER.join(parts[: index + 1]) + BARRIER.join(parts[index + 1 :])
    (tmp_path / "depth_loss").mkdir()
    (tmp_path / "depth_loss" / KERNELS.name).write_text(without)
    program = emulator.program(SOURCE, "thread", "-DPROGRAM", f"-I{tmp_path}")
    ran = emulator.run(program, 0, 1, 40, 35)
    assert "ThreadSanitizer: data race" in ran.stderr
    assert KERNELS.name in ran.stderr
