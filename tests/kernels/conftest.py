"""The backends that the suites of the operations run on."""

from collections.abc import Iterator
from dataclasses import dataclass

import cuda_emulated
import pytest
import torch

from kernels.backends import WHY_UNAVAILABLE


@dataclass(frozen=True)
class Backend:
    """A backend and the device whose tensors it takes."""

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
    """The CUDA kernels' own sources, run on the CPU, on CPU tensors."""

    shared_memory: int = cuda_emulated.A100

    def skip_unless_available(self, operation: str) -> None:
        if operation != "cross_attention":
            pytest.skip(f"the emulation of {operation} has tests of its own")


LOW = (torch.float32, torch.bfloat16, torch.float16)

# A backend runs every suite by standing here.
BACKENDS = [
    pytest.param(Backend("cpp", "cpu"), id="cpp"),
    pytest.param(EmulatedCuda("cuda", "cpu", LOW), id="cuda-emulated"),
]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    chosen = request.param
    if not isinstance(chosen, EmulatedCuda):
        yield chosen
        return
    emulator = request.getfixturevalue("emulator")
    with cuda_emulated.emulated_backend(emulator, chosen.shared_memory):
        yield chosen
