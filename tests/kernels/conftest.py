"""Fixtures for the suites of the operations."""

import ctypes
from collections.abc import Callable, Iterator

import cross_attention_emulated
import depth_loss_emulated
import instruction_sets
import pytest
import torch
from backend import BACKENDS, Backend, EmulatedCuda
from guarded import Outputs
from instruction_sets import INSTRUCTION_SETS, built_extension
from torch import Tensor

from binaural.kernels.dispatch import extension


@pytest.fixture(autouse=True)
def _fixed_configurations(request: pytest.FixtureRequest) -> Iterator[None]:
    """On a GPU, Triton's block sizes are fixed: tuning would compile each kernel many times for every shape.

    test_on_gpu.py tests the tuning.
    """
    if not torch.cuda.is_available() or request.module.__name__ == "test_on_gpu":
        yield
        return
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _poisoned_memory() -> Iterator[None]:
    """The C++ kernels' results and scratch memory are NaN until they are written."""
    if extension.WHY_NOT_LOADED is not None:
        yield
        return
    library = ctypes.CDLL(str(built_extension()))
    library.binaural_poison_memory(1)
    yield
    library.binaural_poison_memory(0)


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    chosen = request.param
    if not isinstance(chosen, EmulatedCuda):
        yield chosen
        return
    emulator = request.getfixturevalue("emulator")
    with cross_attention_emulated.emulated_backend(emulator), depth_loss_emulated.emulated_backend(emulator):
        yield chosen


@pytest.fixture
def force_isa() -> Iterator[Callable[[str], None]]:
    """A function that makes the kernels of the named instruction set run, or skips where they cannot."""

    def force(name: str) -> None:
        why_not = instruction_sets.force(name)
        if why_not is not None:
            pytest.skip(f"{name}: {why_not}")

    yield force
    instruction_sets.force("")


@pytest.fixture(params=INSTRUCTION_SETS)
def isa(request: pytest.FixtureRequest, force_isa: Callable[[str], None]) -> str:
    """Each instruction set in turn; its kernels run."""
    force_isa(request.param)
    return request.param


@pytest.fixture
def check_guards(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Every output made by `binaural.kernels.dispatch.launch.empty` holds NaN and lies between guard bands.

    Gives a check that these are intact.
    """
    outputs, empty = Outputs(), torch.empty

    def guarded(shape: tuple[int, ...], *, dtype: torch.dtype, device: torch.device) -> Tensor:
        if not dtype.is_floating_point:  # of Triton's tuning, not of ours
            return empty(shape, dtype=dtype, device=device)
        return outputs.new(shape, dtype, device)

    monkeypatch.setattr(torch, "empty", guarded)
    return outputs.check
