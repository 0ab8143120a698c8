"""A launch of a Triton kernel as data, so that it can be run, compiled for any GPU, or counted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Config = dict[str, int]
Grid = tuple[int] | Callable[[dict[str, int]], tuple[int]]


@dataclass(frozen=True)
class Launch:
    """One launch of one kernel."""

    kernel: Any
    grid: Grid  # programs, or a function of the configuration that gives them
    arguments: tuple[Any, ...]
    constants: dict[str, Any]
    config: Config  # blocks, warps and stages
    # in place of `config` on GPUs with little shared memory: all but sm_90 to 110
    small_config: Config | None = None

    def __call__(self) -> None:
        config = self.config
        if self.small_config is not None and torch.cuda.is_available():
            major, minor = torch.cuda.get_device_capability()
            config = self.config_for(10 * major + minor)
        self.kernel[self.grid](*self.arguments, **self.constants, **config)

    def config_for(self, architecture: int) -> Config:
        """Blocks, warps and stages on GPUs of a compute capability, times ten."""
        small = architecture < 90 or architecture >= 120
        return self.small_config if small and self.small_config is not None else self.config


def launch_all(launches: Iterable[Launch], device: torch.device) -> None:
    """Run launches whose tensors are on `device`, which need not be the current one."""
    if device.type != "cuda":
        for launch in launches:
            launch()
        return
    # Triton launches on the current device.
    with torch.cuda.device(device):
        for launch in launches:
            launch()


def empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """An uninitialised contiguous tensor on the device, and by default of the dtype, of `like`.

    All outputs of Triton kernels are made here, so that the tests can put guards around them.
    """
    return torch.empty(shape, dtype=dtype or like.dtype, device=like.device)
