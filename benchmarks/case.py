"""One operation at one size, as the benchmark of the kernels needs it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Case:
    """One operation at one size, in several implementations of the same outputs."""

    operation: str
    size: str
    leaves: Sequence[Tensor]  # tensors that require a gradient
    grads: Sequence[Tensor]  # gradients of the outputs
    implementations: dict[str, Callable[[], Sequence[Tensor]]]  # ours first
    traffic: tuple[float, float]  # bytes of all inputs and outputs, forward and backward
    # of forward and backward, as our kernels need them; None where memory is the limit
    flops: tuple[float, float] | None = None
    # reads and writes as much as forward and backward have to, and computes next to nothing
    streaming: Callable[[], object] | None = None
