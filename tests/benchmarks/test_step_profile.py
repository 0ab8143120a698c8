"""The profile of a training step, on the CPU."""

import torch

from benchmarks.step_networks import OURS, Problem, Setting
from benchmarks.step_profile import profile_step


def test_kernels_are_listed_from_the_longest_to_the_shortest() -> None:
    kernels, milliseconds = profile_step(OURS, Problem(8, 16, 2), Setting("cpu", torch.float32, False))
    times = [time for _, time, _ in kernels]
    assert milliseconds > 0
    assert times == sorted(times, reverse=True)
    launches = {name: count for name, _, count in kernels}
    assert launches["aten::_fused_adamw_"] == 2  # one for each group of parameters, in each step
