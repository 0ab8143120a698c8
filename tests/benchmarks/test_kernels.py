"""The benchmark of the kernels on a GPU, whose graphs nothing else captures."""

import pytest
import torch

from benchmarks import cross_attention, depth_loss
from benchmarks.kernels import CALLED, measure
from benchmarks.machine import Machine


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize(
    ("operation", "shape"), [(cross_attention, (2, 16, 2, 8, 8)), (depth_loss, (2, 8, 9))]
)
def test_every_phase_of_every_form_is_measured(operation, shape, device, monkeypatch):
    monkeypatch.setattr(operation, "SHAPES", (shape,))
    (case,) = operation.cases(device, torch.float32, False)
    rows = measure(case, device, 0.01, Machine("Abacus", 2, "2.14", 400.0, "FMA, float32", 20.0))
    found = {(row["implementation"], row["phase"]): row["seconds"]["p50"] for row in rows}
    phases = ["forward", "backward", "both", *([CALLED] if device == "cuda" else [])]
    for name in case.implementations:
        assert all(found.pop((name, phase)) > 0 for phase in phases)
    assert set(found) <= {("streaming", "both")}
