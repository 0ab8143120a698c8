"""The backends that the suites of the operations run on."""

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cross_attention_emulated
import pytest
import torch
from torch import Tensor

import kernels
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

    shared_memory: int = cross_attention_emulated.A100

    def skip_unless_available(self, operation: str) -> None:
        if operation != "cross_attention":
            pytest.skip(f"the emulation of {operation} has tests of its own")


LOW = (torch.float32, torch.bfloat16, torch.float16)

# A backend runs every suite by standing here.
BACKENDS = [
    pytest.param(Backend("cpp", "cpu"), id="cpp"),
    pytest.param(Backend("triton", "cuda" if torch.cuda.is_available() else "cpu", LOW), id="triton"),
    pytest.param(EmulatedCuda("cuda", "cpu", LOW), id="cuda-emulated"),
    pytest.param(Backend("cuda", "cuda", LOW), id="cuda", marks=pytest.mark.gpu),
]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    chosen = request.param
    if not isinstance(chosen, EmulatedCuda):
        yield chosen
        return
    emulator = request.getfixturevalue("emulator")
    with cross_attention_emulated.emulated_backend(emulator, chosen.shared_memory):
        yield chosen


@pytest.fixture(params=["generic", "avx2", "avx512", "avx512_on_avx2"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs the kernels of one instruction set, where the processor has it."""
    folder = Path(kernels.__file__).parent
    library = ctypes.CDLL(str(sorted(folder.glob("_C*.so"))[-1]))
    if library.binaural_force_isa(request.param.encode()) != 0:
        pytest.skip(f"this processor does not have {request.param}")
    yield request.param
    library.binaural_force_isa(b"")


@pytest.fixture
def check_guards(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Every `torch.empty` holds NaN and lies between guard bands; gives a check that these are intact."""
    guard, mark = 256, 64.0
    buffers: list[tuple[Tensor, int]] = []
    empty = torch.empty

    def guarded(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        size = torch.Size(shape).numel()
        buffer = empty(size + 2 * guard, dtype=dtype, device=device).fill_(mark)
        buffer[guard : guard + size] = float("nan")
        buffers.append((buffer, size))
        return buffer[guard : guard + size].view(shape)

    def check() -> None:
        assert buffers, "nothing was allocated through torch.empty"
        for buffer, size in buffers:
            assert (buffer[:guard] == mark).all()
            assert (buffer[guard + size :] == mark).all()

    monkeypatch.setattr(torch, "empty", guarded)
    return check
