"""The benchmark of the training step, on a network too small to say anything about speed."""

import pytest
import torch

from benchmarks.parts import PARTS, measure_parts
from benchmarks.step_networks import (
    FAST_UNET,
    NAIVE_TIME,
    OURS,
    OURS_ALL_SKIPS,
    SYSTEMS,
    USUAL_UNET,
    Problem,
    Setting,
    Step,
)
from benchmarks.training_step import measure, measure_naive, parts_section
from binaural.training.build import make_network
from binaural.training.options import parse_options

PROBLEM = Problem(base_channels=8, size=16, batch=2)
SETTING = Setting("cpu", torch.float32, compiled=False)


@pytest.mark.parametrize("name", SYSTEMS)
def test_every_system_learns(name):
    step = Step(SYSTEMS[name], PROBLEM, SETTING)
    before = step.compute_loss(step.predict()).item()
    for _ in range(20):
        step()
    assert step.compute_loss(step.predict()).item() < before


def test_ratios_are_within_rounds_and_both_ways():
    rows = {row["system"]: row for row in measure(PROBLEM, SETTING, seconds=0.1)}
    assert rows[OURS]["over"][OURS]["p50"] == 1
    there, back = rows[OURS]["over"][FAST_UNET], rows[FAST_UNET]["over"][OURS]
    assert there["p50"] == pytest.approx(1 / back["p50"])
    assert rows[OURS]["flops"] > rows[FAST_UNET]["flops"] == rows[USUAL_UNET]["flops"]
    assert "attention core" in parts_section(list(rows.values()))
    assert measure_naive(PROBLEM, SETTING, NAIVE_TIME)["over"][OURS]["p50"] > 0


@pytest.mark.parametrize("graphs", [False, True])
def test_cuda_graphs_are_those_of_a_compiled_network(graphs, monkeypatch):
    modes = []

    def compile_network(network, **options):
        modes.append(options.get("mode"))
        return network

    monkeypatch.setattr(torch, "compile", compile_network)
    step = Step(SYSTEMS[OURS], PROBLEM, Setting("cpu", torch.float32, compiled=True, graphs=graphs))
    step()
    Step(SYSTEMS[USUAL_UNET], PROBLEM, step.setting)()  # is never compiled
    assert modes == ["reduce-overhead" if graphs else None]


def test_parts_are_told_apart_and_add_up():
    step = Step(SYSTEMS[OURS], PROBLEM, SETTING)
    seconds = measure_parts(step, 1)
    assert set(seconds) == set(PARTS)
    assert all(seconds.values())
    step = Step(SYSTEMS[FAST_UNET], PROBLEM, SETTING)
    seconds = measure_parts(step, 1)
    assert seconds["attention core"] == seconds["attention projections"] == seconds["fusion"] == 0
    assert seconds["encoders"] > 0
    assert seconds["decoder"] > 0


def test_ours_is_the_network_that_train_py_makes():
    made = make_network(parse_options(["--base_channels", "8", "--max_depth", "30"]))
    assert SYSTEMS[OURS].make(8).arguments == made.arguments
    whole = SYSTEMS[OURS_ALL_SKIPS].make(8).arguments
    assert (whole["skip_levels"], whole["attention_levels"]) == ((1, 2, 3, 4), (2, 3, 4, 5))


def test_fused_attention_is_counted():
    """The arithmetic of the fused kernels, which torch does not see, is that of the materialised form."""
    from benchmarks.step_networks import System, make_ours
    from binaural.losses import BinauralAttentionLoss

    fused = Step(SYSTEMS[OURS], PROBLEM, SETTING).count_flops()
    materialised = System(lambda base: make_ours(base, backend="reference"), True, BinauralAttentionLoss)
    assert fused == pytest.approx(Step(materialised, PROBLEM, SETTING).count_flops(), rel=0.02)
