"""The backends that the suites of the operations run on."""

from dataclasses import dataclass

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


# A backend runs every suite by standing here.
BACKENDS = [
    pytest.param(Backend("cpp", "cpu"), id="cpp"),
]


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    return request.param
