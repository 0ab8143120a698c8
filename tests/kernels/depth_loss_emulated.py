"""The CUDA kernels of the depth loss run on the CPU: the extension's two operators, on CPU tensors."""

import ctypes
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from emulated import DTYPES, Emulation, integers, pointer
from emulator import ROOT, Emulator
from guarded import Outputs
from torch import Tensor

SOURCE = ROOT / "tests/csrc/depth_loss_emulated.cu"


class EmulatedDepthLoss:
    """`binaural::edge_aware_loss_forward` and `_backward` by the CUDA sources; same arguments and results.

    Every output starts as NaN and stands between two guards, which are checked after every call.
    """

    def __init__(self, emulator: Emulator) -> None:
        self._emulator = emulator

    @cached_property
    def _library(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self._emulator.library(SOURCE)))

    def forward(
        self, pred: Tensor, target: Tensor, weights: Tensor, with_gradient: bool
    ) -> tuple[Tensor, ...]:
        shape = (pred.shape[0], pred.shape[-2], pred.shape[-1])
        out = Outputs()
        coded, total, terms, scales = (
            out.new(size, torch.float32) for size in (shape if with_gradient else (0,), (), (3,), (2,))
        )
        weights = weights.contiguous()
        self._library.emulated_forward(
            DTYPES.index(pred.dtype), DTYPES.index(target.dtype), integers(*shape),
            pointer(pred), _strides(pred), pointer(target), _strides(target), pointer(weights),
            pointer(coded) if with_gradient else None, pointer(total), pointer(terms), pointer(scales),
        )  # fmt: skip
        out.check()
        return tuple(tensor.clone() for tensor in (total, terms, coded, scales))

    def backward(self, grad_total: Tensor, coded: Tensor, scales: Tensor, pred: Tensor) -> Tensor:
        out = Outputs()
        grad_pred = out.new(tuple(pred.shape), pred.dtype)
        self._library.emulated_backward(
            DTYPES.index(pred.dtype), pointer(grad_total), pointer(coded), pointer(scales),
            pointer(grad_pred), ctypes.c_int64(pred.numel()),
        )  # fmt: skip
        out.check()
        return grad_pred.clone()


def _strides(images: Tensor) -> ctypes.Array[ctypes.c_int64]:
    return integers(images.stride(0), images.stride(-2), images.stride(-1))


_EMULATION = Emulation("edge_aware_loss", "binaural.kernels.depth_loss.operator")


def emulated_backend(emulator: Emulator) -> AbstractContextManager[None]:
    """Inside, backend "cuda" of the depth loss takes CPU tensors and runs the emulated kernels."""
    return _EMULATION.backend(EmulatedDepthLoss(emulator))
