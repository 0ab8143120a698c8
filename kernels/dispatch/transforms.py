"""Function transforms, forward-mode AD and tracing, in which the kernels cannot run."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

WHY_NOT_TRANSFORMED = (
    "torch.func transforms (grad, vjp, jvp, vmap, ...), forward-mode AD and torch.jit.trace need "
    "backend='reference' or None"
)


def is_transformed() -> bool:
    """Whether a `torch.func` transform, forward-mode AD or `torch.jit.trace` is active.

    The kernels have a first-order gradient alone: no tangents, no batching rules, and no TorchScript for it.
    Then `choose` takes the reference, whose plain operators have all of them.
    """
    return (
        torch._C._are_functorch_transforms_active()
        # Levels nest: from the first one on, any tensor may have a tangent.
        or forward_ad._current_level >= 0
        or torch.jit.is_tracing()
    )


def check_no_tangent(operator: str, arguments: tuple[Any, ...]) -> None:
    """Raise RuntimeError if an argument of an operator has a tangent, which the operator would drop.

    `choose` takes no kernel inside forward-mode AD. This is for a backward pass inside it of a forward pass
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
