"""What Python adds to the extension's operators: shapes without data, and a refusal of second order."""

from collections.abc import Callable
from typing import Any, NoReturn

import torch

from kernels.extension import NAMESPACE


def complete_operator(operator: str, fake: Callable[..., Any]) -> None:
    """Give `binaural::operator` its fake, and an autograd formula that raises.

    The public functions wrap the operators in an `autograd.Function`, so that formula is only reached by
    a gradient of a gradient: without it PyTorch would drop that term with a warning.
    """
    name = f"{NAMESPACE}::{operator}"

    def refuse(*_: Any) -> NoReturn:
        raise RuntimeError(
            f"{name} has no gradient of its own: second-order gradients of the fused kernels do not "
            "exist; use backend='reference' for them"
        )

    torch.library.register_fake(name, fake)
    torch.library.register_autograd(name, refuse)
