"""Optimiser, learning-rate schedule and torch.compile, as chosen on the command line."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

_WARM_UP = 0.02  # of all steps


def make_optimizer(
    name: str, network: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.Optimizer:
    """AdamW, Adam or SGD with momentum; norms, biases, gains and lag biases do not decay."""
    decaying = [p for n, p in network.named_parameters() if p.dim() > 1 and not n.endswith("lag_bias")]
    decays = {id(p) for p in decaying}
    other = [p for p in network.parameters() if id(p) not in decays]
    groups = [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": other, "weight_decay": 0.0},
    ]
    # fused: one kernel for all parameters instead of several for each
    if name == "sgd":
        return torch.optim.SGD(groups, learning_rate, momentum=0.9, nesterov=True, fused=True)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[name]
    return kind(groups, learning_rate, fused=True)


def make_scheduler(name: str, optimizer: torch.optim.Optimizer, total_steps: int) -> LambdaLR:
    """Learning rate by step: a linear warm-up, then cosine to 0, a tenth after each third, or constant."""
    warm_up = max(1, round(_WARM_UP * total_steps))

    def after_warm_up(step: int) -> float:
        done = min((step - warm_up) / max(1, total_steps - warm_up), 1.0)
        if name == "cosine":
            return 0.5 * (1 + math.cos(math.pi * done))
        return 0.1 ** min(int(3 * done), 2) if name == "step" else 1.0

    factor: Callable[[int], float] = lambda step: (  # noqa: E731
        (step + 1) / warm_up if step < warm_up else after_warm_up(step)
    )
    return LambdaLR(optimizer, factor)


def compile_network(network: nn.Module) -> Any:
    """The network compiled by torch.compile, for batches of one size."""
    return torch.compile(network, fullgraph=True, dynamic=False)


def choose_compile(name: str, device: torch.device, sync_batchnorm: bool) -> tuple[bool, str]:
    """Whether to compile the network, and the reason.

    Raises:
        ValueError: `name` is "on" and the network cannot be compiled.
    """
    if name == "on" and sync_batchnorm:
        raise ValueError("--compile on: batch norms over several ranks cannot be compiled")
    if name != "auto":
        return name == "on", "as asked"
    if sync_batchnorm:
        return False, "batch norms over several ranks cannot be compiled"
    if device.type == "cuda":
        return True, "on a GPU"
    return False, "on a CPU, compiling takes longer than it saves"
