"""The benchmark of the kernels measures each phase of each implementation."""

import pytest
import torch

from benchmarks import cross_attention, depth_loss, layers
from benchmarks.kernels import CALLED, measure
from benchmarks.machine import Machine

MACHINE = Machine("Abacus", 2, "2.14", 400.0, "FMA, float32", 20.0)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("operation", "shape"), [(cross_attention, (2, 16, 2, 8, 8)), (depth_loss, (2, 8, 9))]
)
def test_every_phase_of_every_implementation_is_measured(operation, shape, device, monkeypatch):
    monkeypatch.setattr(operation, "SHAPES", (shape,))
    (case,) = operation.cases(device, torch.float32, False)
    rows = measure(case, device, 0.01, MACHINE)
    check_phases(case, rows, device)


@pytest.mark.parametrize("operation", layers.CASES)
def test_every_fused_layer_has_cases(operation, monkeypatch):
    monkeypatch.setattr(layers, "MAPS", ((16, 8, 8),))
    for dtype in layers.DTYPES[operation]:
        cases = list(layers.CASES[operation]("cpu", dtype, False))
        for case in cases:
            assert list(case.implementations) == ["cpp", "PyTorch"]
            assert [len(run()) for run in case.implementations.values()] == [len(case.grads)] * 2
    check_phases(cases[0], measure(cases[0], "cpu", 0.01, MACHINE), "cpu")
    assert set(layers.CASES) == set(layers.DTYPES)
    assert not list(layers.CASES[operation]("cpu", torch.float16, False))


def check_phases(case, rows, device):
    """Each implementation has a time for each phase."""
    found = {(row["implementation"], row["phase"]): row["seconds"]["p50"] for row in rows}
    phases = ["forward", "backward", "both", *([CALLED] if device == "cuda" else [])]
    for name in case.implementations:
        assert all(found.pop((name, phase)) > 0 for phase in phases)
    assert set(found) <= {("streaming", "both")}
