"""The CUDA kernels of cross-attention, from their own source on the CPU, under the eyes of the sanitizers.

What they compute is tested with every other backend, in test_cross_attention.py.
"""

from pathlib import Path

import pytest
import torch
from cross_attention_cases import Case, defined, make, relative_error
from cross_attention_emulated import A100, NOTHING, RTX_4090, SOURCE, emulated_backend
from emulated import DTYPES
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


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    "case",
    [
        case
        for cases in (
            Case(1, 37, 70, 2, 16, 16, reach=3),
            Case(1, 70, 20, 1, 16, 100, max_lag=5, reach=90),
            Case(1, 33, 20, 1, 100, 128),
        )
        for case in cases.both()
    ],
    ids=str,
)
def test_short_problems_blockwise(emulator: Emulator, case: Case, dtype: torch.dtype) -> None:
    # Every length runs so where shared memory is too small for the whole problem.
    call = make(case)
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 1e-2, torch.float16: 2e-3}[dtype]
    with emulated_backend(emulator, NOTHING):
        results = call.to(dtype).run("cuda")
    for name, ours, value in zip(call.names(), results, defined(call), strict=True):
        assert relative_error(ours, value) < tolerance, name


def test_a_bias_of_every_lag_keeps_few_parts(emulator: Emulator) -> None:
    # More tiles of rows than parts: a block then goes over several tiles.
    for case in Case(1, 600, 530, 1, 8, 8, reach=599).both():
        call = make(case)
        with emulated_backend(emulator):
            results = call.to(torch.float32).run("cuda")
        for name, ours, value in zip(call.names(), results, defined(call), strict=True):
            assert relative_error(ours, value) < 1e-5, name


@pytest.mark.parametrize(
    ("case", "dtype", "reason"),
    [
        (Case(1, 4, 5, 1, 129, 8), torch.float32, "at most 128 channels of q per head, and these have 129"),
        (Case(1, 4, 5, 1, 8, 8), torch.float64, "compute in float32, and these tensors are float64"),
    ],
)
def test_what_is_not_covered_is_said(emulator: Emulator, case: Case, dtype: torch.dtype, reason: str) -> None:
    with emulated_backend(emulator), pytest.raises(ValueError, match=reason):
        make(case).to(dtype).run("cuda")


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize(("n", "d"), [(128, 32), (64, 64), (32, 64), (16, 64)])
def test_on_chip_every_operand_is_read_once_and_every_result_written_once(
    emulator: Emulator, n: int, d: int, separate: bool
) -> None:
    # One problem and head of the model's shapes, with a bias of all lags.
    forward, backward, sum_bias = emulator.count(
        SOURCE, 1, 1, n, n, 1, d, d, -1, n - 1, RTX_4090, int(separate)
    )
    operand, statistics, bias = 2 * n * d, 4 * n, 4 * (2 * n - 1)
    jobs = 2 if separate else 1  # one for each direction
    assert forward.blocks == backward.blocks == jobs
    for launch, reads, writes in (
        (forward, (6 if separate else 4) * operand + jobs * bias, 2 * (operand + statistics)),
        (
            backward,
            (10 if separate else 8) * operand + 2 * statistics + jobs * bias,
            (6 if separate else 4) * operand + jobs * bias,
        ),
        (sum_bias, jobs * bias, bias),
    ):
        assert (launch.read, launch.written) == (reads, writes), launch
    products = (4, 10) if separate else (3, 7)
    assert (forward.operations, backward.operations) == tuple(2 * n * n * d * count for count in products)
