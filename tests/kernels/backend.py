"""The backends that the suites of the operations run on."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from emulated import DTYPES

from binaural import kernels
from binaural.kernels.dispatch.backends import WHY_UNAVAILABLE


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

    def skip_unless_available(self, operation: str) -> None:
        """The fixture `emulator` skips where its sources cannot be compiled."""


# That all CPU kernels are compiled for.
INSTRUCTION_SETS = ["generic", "avx2", "avx512", "avx512_bf16", "avx512_on_avx2"]


def built_extension() -> Path:
    """The extension's file, for what is called past torch."""
    return sorted(Path(kernels.__file__).parent.glob("_C*.so"))[-1]


# A backend runs every suite by standing here.
BACKENDS = [
    pytest.param(Backend("cpp", "cpu"), id="cpp"),
    pytest.param(Backend("triton", "cuda" if torch.cuda.is_available() else "cpu", DTYPES), id="triton"),
    pytest.param(EmulatedCuda("cuda", "cpu", DTYPES), id="cuda-emulated"),
    pytest.param(Backend("cuda", "cuda", DTYPES), id="cuda", marks=pytest.mark.gpu),
]
