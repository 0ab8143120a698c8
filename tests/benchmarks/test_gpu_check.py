"""The checks of correctness that `make gpu` begins with, on the CPU."""

import pytest
import torch
from torch import Tensor

from benchmarks import gpu_check
from benchmarks.gpu_check import SHAPES, accepted, check_compiled, check_kernels
from benchmarks.step_networks import Problem
from binaural.kernels import cross_attention

SMALL = [shape for shape in SHAPES if shape.r * shape.n * shape.m < 100_000]


def test_the_cpu_kernels_pass() -> None:
    rows = list(check_kernels("cpu", SMALL))
    assert len(rows) == 3 * len(SMALL) > 0
    assert [row["wrong"] for row in rows] == [""] * len(rows)


@pytest.mark.parametrize("fault", ["scale", "nan", "noise"])
def test_a_faulty_kernel_fails(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    def faulty(*inputs: Tensor, backend: str, **options: object) -> tuple[Tensor, Tensor]:
        o_left, o_right = cross_attention(*inputs, backend=backend, **options)
        if fault == "scale":
            return 1.05 * o_left, o_right
        if fault == "nan":
            return o_left + torch.nan, o_right
        return o_left, o_right + 1e-7 * torch.randn_like(o_right)  # within the tolerance, other at every call

    monkeypatch.setattr(gpu_check, "cross_attention", faulty)
    for row in check_kernels("cpu", SMALL[:1]):
        if fault != "noise":
            assert "o_left" in str(row["wrong"])
        elif row["dtype"] == "float32":
            assert row["wrong"] == "the second run gives other bits"


def test_an_error_of_nan_is_never_accepted() -> None:
    assert accepted(1e-4, float("nan"), torch.bfloat16)  # PyTorch has NaN where a query has no key
    assert not accepted(float("nan"), 1.0, torch.bfloat16)
    assert not accepted(1.0, float("nan"), torch.bfloat16)
    assert not accepted(0.021, 0.01, torch.bfloat16)


def test_the_compiled_step_is_compared_with_the_eager_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import step_networks

    problem = Problem(base_channels=8, size=16, batch=2)
    # The compiler itself is tested on a GPU and takes minutes on a CPU.
    monkeypatch.setattr(step_networks, "compile_network", lambda network: network)
    eager, compiled, wrong = check_compiled("cpu", torch.float32, problem)
    assert len(eager) == len(compiled) == 10
    assert wrong == ""
    monkeypatch.setattr(step_networks, "compile_network", lambda network: lambda x: 1.1 * network(x))
    assert "step 0: " in check_compiled("cpu", torch.float32, problem)[2]
