"""A launch of a Triton kernel as data, so that it can be run, compiled for any GPU, or counted."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Grid = tuple[int] | Callable[[dict[str, int]], tuple[int]]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel."""

    kernel: Any
    grid: Grid  # programs, or a function of `config` that gives them
    arguments: tuple[Any, ...]
    constants: dict[str, int]
    config: dict[str, int]  # blocks, warps and stages

    def __call__(self) -> None:
        self.kernel[self.grid](*self.arguments, **self.constants, **self.config)


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised contiguous tensor on the device, and by default of the dtype, of `like`.

    All outputs of Triton kernels are made here, so that the tests can put guards around them.
    """
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device)
