"""What the emulations of both operations share: ctypes, and the way in."""

import ctypes
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from binaural.kernels.dispatch import backends
from binaural.kernels.dispatch.registration import define_operator

# As the emulated sources number them.
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


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
        self._forward, self._backward = (
            define_operator(f"{operation}_{direction}_emulated", schema, self._calls(direction), fake)
            for direction, schema, fake in (
                ("forward", self._operator.FORWARD_SCHEMA, self._operator._fake_forward),
                ("backward", self._operator.BACKWARD_SCHEMA, self._operator._fake_backward),
            )
        )

    def _calls(self, direction: str) -> Callable[..., Any]:
        return lambda *arguments: getattr(self._current[-1], direction)(*arguments)

    @contextmanager
    def backend(self, emulated: Any) -> Iterator[None]:
        """Inside, backend "cuda" of this operation takes CPU tensors, for `emulated` to compute on."""
        why_not: Callable[..., str | None] = backends._why_not

        def why_not_on_cpu(
            operation: str,
            backend: str,
            tensor: Tensor,
            why_not_covered: Mapping[str, Callable[..., str | None]],
            arguments: tuple[Any, ...],
        ) -> str | None:
            if (operation, backend) == (self._operation, "cuda"):
                if not tensor.is_cpu:
                    return "the emulation runs on the CPU"
                return why_not_covered["cuda"](tensor, *arguments)
            return why_not(operation, backend, tensor, why_not_covered, arguments)

        with (
            patch.dict(self._operator._FORWARD, cuda=self._forward),
            patch.dict(self._operator._BACKWARD, cuda=self._backward),
            patch.object(backends, "_why_not", why_not_on_cpu),
        ):
            self._current.append(emulated)
            try:
                yield
            finally:
                self._current.pop()
