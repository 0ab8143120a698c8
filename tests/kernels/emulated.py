"""What the emulations of both operations share: outputs between guards, ctypes, and the way in."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from kernels import backends
from kernels.registration import define_operator

# As the emulated sources number them.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Elements on either side of every output that must stay as they are.
_GUARD, _MARK = 64, 7


class Outputs:
    """Tensors that start as NaN and stand between guards."""

    def __init__(self) -> None:
        self._buffers: dict[int, Tensor] = {}

    def new(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        buffer = torch.full((torch.Size(shape).numel() + 2 * _GUARD,), float("nan"), dtype=dtype)
        buffer[:_GUARD] = buffer[-_GUARD:] = _MARK
        inner = buffer[_GUARD:-_GUARD].view(shape)
        self._buffers[inner.data_ptr()] = buffer
        return inner

    def checked(self, tensor: Tensor) -> Tensor:
        """A copy of an output, after a look at its guards."""
        buffer = self._buffers[tensor.data_ptr()]
        assert (torch.cat([buffer[:_GUARD], buffer[-_GUARD:]]) == _MARK).all(), "written outside of an output"
        return tensor.clone()


def pointer(tensor: Tensor | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def integers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


class Emulation:
    """The two operators of an operation with "_emulated" in their names, and the backend that takes them.

    They call `forward` and `backward` of the object that `backend` was entered with.
    """

    def __init__(self, operation: str, module: str) -> None:
        self._operation = operation
        self._operator: Any = import_module(module)
        self._current: list[Any] = []
        for direction, schema, fake in (
            ("forward", self._operator.FORWARD_SCHEMA, self._operator._fake_forward),
            ("backward", self._operator.BACKWARD_SCHEMA, self._operator._fake_backward),
        ):
            define_operator(f"{operation}_{direction}_emulated", schema, self._calls(direction), fake)

    def _calls(self, direction: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(self._current[-1], direction)(*arguments)

    @contextmanager
    def backend(self, emulated: Any) -> Iterator[None]:
        """Inside, backend "cuda" of this operation takes CPU tensors, for `emulated` to compute on."""
        why_not: Callable[..., str | None] = backends._why_not

        def why_not_on_cpu(
            operation: str,
            backend: str,
            device: torch.device,
            why_not_covered: Mapping[str, Callable[[], str | None]],
        ) -> str | None:
            if (operation, backend) == (self._operation, "cuda"):
                return why_not_covered["cuda"]() if device.type == "cpu" else "the emulation runs on the CPU"
            return why_not(operation, backend, device, why_not_covered)

        forward, backward = (
            getattr(torch.ops.binaural, f"{self._operation}_{direction}_emulated")
            for direction in ("forward", "backward")
        )
        with (
            patch.dict(self._operator._FORWARD, cuda=forward),
            patch.dict(self._operator._BACKWARD, cuda=backward),
            patch.object(backends, "_why_not", why_not_on_cpu),
        ):
            self._current.append(emulated)
            try:
                yield
            finally:
                self._current.pop()
