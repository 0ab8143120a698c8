"""The backends that the suites of the operations run on."""

from dataclasses import dataclass

import pytest
import torch
from emulated import DTYPES

from binaural.kernels.dispatch.backends import WHY_UNAVAILABLE


@dataclass(frozen=True)
class Backend:
    """A backend and the device of the tensors that it is tested with."""

    name: str
    device: str
    dtypes: tuple[torch.dtype, ...] = (torch.float32, torch.bfloat16, torch.float16, torch.float64)

    def __str__(self) -> str:
        return self.name

    def skip_unless_available(self, operation: str) -> None:
        reason = WHY_UNAVAILABLE[self.name, operation]
        if reason is not None:
            pytest.skip(f"{self.name}: {reason}")


@dataclass(frozen=True)
class EmulatedCuda(Backend):
    """The sources of the CUDA kernels, compiled for the CPU and run on CPU tensors."""

    def skip_unless_available(self, operation: str) -> None:
        """Does nothing: the fixture `emulator` skips where the sources cannot be compiled."""


# Every suite runs on each of these.
BACKENDS = [
    pytest.param(Backend("cpp", "cpu"), id="cpp"),
    pytest.param(Backend("triton", "cuda" if torch.cuda.is_available() else "cpu", DTYPES), id="triton"),
    pytest.param(EmulatedCuda("cuda", "cpu", DTYPES), id="cuda-emulated"),
    pytest.param(Backend("cuda", "cuda", DTYPES), id="cuda", marks=pytest.mark.gpu),
]
