"""The CUDA kernels of the depth loss run on the CPU: the extension's two operators, on CPU tensors."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from unittest.mock import patch

import torch
from emulator import ROOT, Emulator
from torch import Tensor

from kernels import backends
from kernels.registration import complete_operator

SOURCE = ROOT / "tests/csrc/depth_loss_emulated.cu"
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Elements on either side of every output that must stay as they are.
_GUARD = 64


class EmulatedDepthLoss:
    """`binaural::edge_aware_loss_forward` and `_backward` by the CUDA sources; same arguments and results.

    Every output stands between two guards, which are checked after every call.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._library = ctypes.CDLL(str(emulator.library(SOURCE)))

    def forward(
        self, pred: Tensor, target: Tensor, weights: Tensor, with_gradient: bool
    ) -> tuple[Tensor, ...]:
        shape = (pred.shape[0], pred.shape[-2], pred.shape[-1])
        coded, total, terms, scales = (
            _guarded(size, torch.float32) for size in (shape if with_gradient else (0,), (), (3,), (2,))
        )
        weights = weights.contiguous()
        self._library.emulated_forward(
            DTYPES.index(pred.dtype), DTYPES.index(target.dtype), _integers(*shape),
            _pointer(pred), _strides(pred), _pointer(target), _strides(target), _pointer(weights),
            _pointer(coded) if with_gradient else None, _pointer(total), _pointer(terms), _pointer(scales),
        )  # fmt: skip
        return tuple(_checked(tensor) for tensor in (total, terms, coded, scales))

    def backward(self, grad_total: Tensor, coded: Tensor, scales: Tensor, pred: Tensor) -> Tensor:
        grad_pred = _guarded(tuple(pred.shape), pred.dtype)
        self._library.emulated_backward(
            DTYPES.index(pred.dtype), _pointer(grad_total), _pointer(coded), _pointer(scales),
            _pointer(grad_pred), ctypes.c_int64(pred.numel()),
        )  # fmt: skip
        return _checked(grad_pred)


def _guarded(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    buffer = torch.full((torch.Size(shape).numel() + 2 * _GUARD,), 7, dtype=dtype)
    return buffer[_GUARD:-_GUARD].view(shape)


def _checked(tensor: Tensor) -> Tensor:
    """A copy of an output, after a look at its guards."""
    buffer = tensor._base
    assert buffer is not None
    assert (torch.cat([buffer[:_GUARD], buffer[-_GUARD:]]) == 7).all(), "written outside of an output"
    return tensor.clone()


def _pointer(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _integers(*values: int) -> ctypes.Array[ctypes.c_int64]:
    return (ctypes.c_int64 * len(values))(*values)


def _strides(images: Tensor) -> ctypes.Array[ctypes.c_int64]:
    return _integers(images.stride(0), images.stride(-2), images.stride(-1))


_operator = import_module("kernels.depth_loss.operator")
_current: list[EmulatedDepthLoss] = []
_library = torch.library.Library("binaural", "FRAGMENT")
for _direction, _schema, _fake in (
    ("forward", _operator.FORWARD_SCHEMA, _operator._fake_forward),
    ("backward", _operator.BACKWARD_SCHEMA, _operator._fake_backward),
):
    _name = f"edge_aware_loss_{_direction}_emulated"
    _library.define(_name + _schema)
    _library.impl(_name, lambda *args, _run=_direction: getattr(_current[-1], _run)(*args), "CPU")
    complete_operator(_name, _fake)


@contextmanager
def emulated_backend(emulator: Emulator) -> Iterator[None]:
    """Inside, backend "cuda" of the depth loss takes CPU tensors and runs the emulated kernels."""
    why_not = backends._why_not

    def why_not_on_cpu(operation, backend, device, why_not_covered):  # type: ignore[no-untyped-def]
        if (operation, backend) == ("edge_aware_loss", "cuda"):
            return why_not_covered["cuda"]()
        return why_not(operation, backend, device, why_not_covered)

    with (
        patch.dict(_operator._FORWARD, cuda=torch.ops.binaural.edge_aware_loss_forward_emulated),
        patch.dict(_operator._BACKWARD, cuda=torch.ops.binaural.edge_aware_loss_backward_emulated),
        patch.object(backends, "_why_not", why_not_on_cpu),
    ):
        _current.append(EmulatedDepthLoss(emulator))
        try:
            yield
        finally:
            _current.pop()
