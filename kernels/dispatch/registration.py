"""Operators of Python, and what Python adds to all: shapes without data, and a refusal of second order."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from binaural.kernels.dispatch.extension import NAMESPACE

# The extension owns the namespace; this adds to it, also where the extension is not built.
_library = torch.library.Library(NAMESPACE, "FRAGMENT")


class Operator:
    """What calls an operator, sooner where no gradient is recorded, as in a Function's forward and backward.

    There it goes below autograd at once: Python's way through the formula that refuses takes 5 µs, a good
    part of a small call.

    Attributes:
        overload: the operator as PyTorch knows it.
    """

    def __init__(self, overload: Any) -> None:
        self.overload = overload

    def __call__(self, *arguments: Any) -> Any:
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.overload(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return self.overload(*arguments)


def define_operator(
    operator: str, schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> Operator:
    """Define `binaural::operator`, opaque to torch.compile, with one implementation for every device.

    Returns:
        What calls it.
    """
    _library.define(operator + schema)
    for key in ("CPU", "CUDA"):
        _library.impl(operator, implementation, key)
    return complete_operator(operator, fake)


def complete_operator(operator: str, fake: Callable[..., Any]) -> Operator:
    """Give `binaural::operator` its fake, and an autograd formula that raises.

    The public functions wrap the operators in an `autograd.Function`, so that formula is only reached by
    a gradient of a gradient: without it PyTorch would drop that term with a warning.

    Returns:
        What calls it.
    """
    name = f"{NAMESPACE}::{operator}"

    def refuse(*_: Any) -> NoReturn:
        raise RuntimeError(
            f"{name} has no gradient of its own: second-order gradients of the fused kernels do not "
            "exist; use backend='reference' for them"
        )

    torch.library.register_fake(name, fake)
    torch.library.register_autograd(name, refuse)
    return Operator(getattr(getattr(torch.ops, NAMESPACE), operator).default)
