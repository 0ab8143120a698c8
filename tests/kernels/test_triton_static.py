"""What the compiler makes of the Triton kernels for GPUs, found out without one."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

pytest.importorskip("triton")

# In a process of its own, because kernels that are interpreted here cannot be compiled here.
COMPILE = """
import dataclasses, json, sys, torch
from benchmarks.gpu_static import compile_launch
from binaural.kernels.cross_attention.triton_plan import plan_backward, plan_forward

def compiled(dtype, n, d, dv, architecture, bias, separate, max_lag):
    def tensor(channels):
        return torch.empty(2, n, 2, channels, dtype=getattr(torch, dtype), device="meta")

    keys = [tensor(d), tensor(d)] if separate else [None, None]
    lag_bias = torch.empty(2, 2 * min(n, 9) - 1, device="meta") if bias else None
    inputs = [tensor(d), tensor(d), tensor(dv), tensor(dv), *keys, lag_bias, 0.1, 20 if max_lag else None]
    launches, outputs = plan_forward(*inputs)
    launches += plan_backward(tensor(dv), tensor(dv), *inputs[:7], *outputs, *inputs[7:])[0]
    for launch in launches:
        yield launch.kernel.fn.__name__, dataclasses.asdict(compile_launch(launch, architecture)[0])

print(json.dumps([list(compiled(**case)) for case in json.load(sys.stdin)]))
"""


@dataclass(frozen=True)
class Case:
    """One call, and the GPU that it is compiled for."""

    dtype: str
    n: int
    d: int
    dv: int
    architecture: int = 80
    bias: bool = True
    separate: bool = False
    max_lag: bool = False


# Bytes that a block may have. What is compiled for sm_80 stands for sm_86, 89 and 120 too, the smallest.
SHARED_MEMORY = {80: 99 << 10, 90: 227 << 10, 100: 227 << 10}
SIZES = ((32, 64), (200, 32))  # where one program takes a whole problem, and where it takes a block
OPTIONS = [
    Case("bfloat16", n, channels, channels, 80, bias, separate, max_lag)
    for n, channels in SIZES
    for bias in (False, True)
    for separate in (False, True)
    for max_lag in (False, True)
]
MODEL = [
    *(Case("bfloat16", n, 64, 64, architecture) for n in (16, 32) for architecture in (80, 90, 100)),
    *(Case("bfloat16", 64, 64, 64, architecture, separate=True) for architecture in (80, 90)),
    Case("bfloat16", 128, 32, 32, 90),
    Case("bfloat16", 256, 16, 128, 90, bias=False),
    Case("bfloat16", 200, 16, 128, bias=False),
    Case("float16", 128, 32, 32, bias=False),
    Case("float32", 16, 64, 64, separate=True),
    Case("float32", 32, 32, 32),
]
# float32 in blocks, the widest that one program takes whole, and that is covered: some spill registers.
WIDE = [
    Case("float32", 128, 64, 64, 90),
    Case("float32", 200, 16, 64, bias=False, max_lag=True),
    Case("bfloat16", 128, 64, 64, separate=True),
    Case("bfloat16", 64, 128, 128, separate=True),
    Case("bfloat16", 200, 128, 128, separate=True),
    Case("float16", 200, 128, 128, 90, separate=True),
    Case("float32", 200, 64, 64, separate=True),
    Case("float32", 200, 128, 64, separate=True),
]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cases", "spills"),
    [(OPTIONS, True), (MODEL, False), (WIDE, True)],
    ids=["every option", "of the model", "wide"],
)
def test_it_compiles_and_fits(cases: list[Case], spills: bool) -> None:
    """Every kernel compiles, fits into shared memory and multiplies on tensor cores.

    `python -m benchmarks.gpu_report` tells more, of more sizes.
    """
    for case, kernels in zip(cases, compiled(cases), strict=True):
        assert len(kernels) >= 2, case
        for kernel, found in kernels:
            told = (case, kernel, found)
            assert found["shared_memory"] <= SHARED_MEMORY[case.architecture], told
            assert found["tensor_core"] > 0 or kernel in ("prepare_backward", "sum_near_lags"), told
            assert spills or found["spills"] == found["stack"] == 0, told


def compiled(cases: list[Case]) -> list[list[tuple[str, dict[str, Any]]]]:
    """For each case, what became of each of its kernels."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE],
        env=environment,
        input=json.dumps([vars(case) for case in cases]),
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return json.loads(done.stdout)
