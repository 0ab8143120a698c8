from itertools import pairwise

import pytest
import torch

from binaural import BinauralAttentionDepthNet
from binaural.training.optimisation import choose_compile, make_optimizer, make_scheduler


def rates(name, steps=100):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler = make_scheduler(name, optimizer, steps)
    seen = []
    for _ in range(steps):
        seen.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    return seen


def test_schedules():
    cosine, step, none = rates("cosine"), rates("step"), rates("none")
    assert cosine[0] == step[0] == none[0] == 0.5  # warm-up: two of a hundred steps
    assert cosine[2] == 1.0
    assert cosine[51] == pytest.approx(0.5)
    assert cosine[-1] < 1e-3
    assert all(a >= b for a, b in pairwise(cosine[2:]))
    assert sorted({round(rate, 6) for rate in step[2:]}) == [0.01, 0.1, 1.0]
    assert set(none[2:]) == {1.0}


@pytest.mark.parametrize("name", ["adamw", "adam", "sgd"])
def test_norms_biases_and_gains_do_not_decay(name):
    network = BinauralAttentionDepthNet(8)
    optimizer = make_optimizer(name, network, 1e-3, 0.1)
    names = {id(p): n for n, p in network.named_parameters()}
    decaying = {names[id(p)] for p in optimizer.param_groups[0]["params"]}
    assert optimizer.param_groups[1]["weight_decay"] == 0
    assert "encoder_left.levels.0.0.weight" in decaying
    assert "attention.2.project_left.weight" in decaying
    assert not {n for n in decaying if n.endswith(("bias", "gain_left", "norm_left.weight"))}
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len(names)


def test_what_is_compiled():
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert choose_compile("auto", gpu, sync_batchnorm=False)[0]
    assert choose_compile("auto", gpu, sync_batchnorm=True) == (
        False,
        "batch norms over several ranks cannot be compiled",
    )
    assert not choose_compile("auto", cpu, sync_batchnorm=False)[0]
    assert choose_compile("on", cpu, sync_batchnorm=False) == (True, "as asked")
    with pytest.raises(ValueError, match="--compile on: batch norms"):
        choose_compile("on", gpu, sync_batchnorm=True)
