"""Function transforms and forward-mode AD, for which the kernels have no formulas."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

WHY_NOT_TRANSFORMED = (
    "inside torch.func transforms (grad, vjp, jvp, vmap, ...) and forward-mode AD only backend='reference' "
    "has all derivatives"
)


def is_transformed() -> bool:
    """Whether a `torch.func` transform or forward-mode AD is active: then only plain PyTorch can run.

    The kernels know their gradient alone: no tangents, no gradients of gradients, no batching rules.
    Takes 0.3 µs a call.
    """
    # Levels nest: with the first one every tensor may have a tangent.
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def check_no_tangent(operator: str, arguments: tuple[Any, ...]) -> None:
    """Raise RuntimeError if an argument of an operator has a tangent, which the operator would lose.

    `choose` keeps kernels away from forward-mode AD; this is for the backward pass of a forward pass that ran
    outside it.
    """
    if forward_ad._current_level < 0:
        return
    for argument in arguments:
        if isinstance(argument, Tensor) and forward_ad.unpack_dual(argument).tangent is not None:
            raise RuntimeError(
                f"{operator} has no forward-mode derivative, and an argument has a tangent: run the forward "
                "pass inside forward_ad.dual_level() too, or with backend='reference'"
            )
