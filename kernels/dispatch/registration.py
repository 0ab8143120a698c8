"""Define operators, or complete those of the extension: fake kernels, an error for second-order gradients."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.extension import NAMESPACE
from binaural.kernels.dispatch.transforms import check_no_tangent

# The extension owns the namespace; this adds to it, whether or not the extension is built.
_library = torch.library.Library(NAMESPACE, "FRAGMENT")


class Operator:
    """A callable operator that skips autograd where no gradient is recorded, as in a Function's forward and
    backward.

    Dispatch through the Python autograd formula that raises takes 5 µs, a good part of a small call.

    Attributes:
        overload: PyTorch's handle of the operator.
    """

    def __init__(self, overload: Any) -> None:
        self.overload = overload

    def __call__(self, *arguments: Any) -> Any:
        check_no_tangent(self.overload, arguments)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            return self.overload(*arguments)
        with torch._C._AutoDispatchBelowAutograd():
            return self.overload(*arguments)


def define_operator(
    operator: str, schema: str, implementation: Callable[..., Any], fake: Callable[..., Any]
) -> Operator:
    """Define `binaural::operator`, opaque to torch.compile, with one implementation for all devices."""
    _library.define(operator + schema)
    for key in ("CPU", "CUDA"):
        _library.impl(operator, implementation, key)
    return complete_operator(operator, fake)


def complete_operator(operator: str, fake: Callable[..., Any]) -> Operator:
    """Register the fake kernel of `binaural::operator`, and an autograd formula that raises.

    The public functions wrap the operators in an `autograd.Function`, so that only second-order gradients
    reach that formula: without it PyTorch would drop that term with a warning.
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


def extension_operator(operator: str, fake: Callable[..., Any]) -> Callable[..., Any]:
    """Do the same for an operator that the extension defines.

    Without the extension `choose` never selects its kernels; the result raises RuntimeError when called.
    """
    if extension.WHY_NOT_LOADED is None:
        return complete_operator(operator, fake)

    def missing(*_: Any) -> NoReturn:
        raise RuntimeError(f"{NAMESPACE}::{operator} cannot run: {extension.WHY_NOT_LOADED}")

    return missing
