"""The CUDA kernels of cross-attention run on the CPU: the extension's two operators, on CPU tensors."""

import ctypes
from contextlib import AbstractContextManager
from functools import cached_property

import torch
from emulated import DTYPES, Emulation, integers, pointer
from emulator import ROOT, Emulator
from guarded import Outputs
from torch import Tensor

SOURCE = ROOT / "tests/csrc/cross_attention_emulated.cu"
# What a block may use of an A100's, an RTX 4090's, and of nothing: then every length runs blockwise.
A100, RTX_4090, NOTHING = 163 << 10, 99 << 10, 0

Tensors = tuple[Tensor, ...]


class EmulatedCrossAttention:
    """`binaural::cross_attention_forward` and `_backward` by the CUDA sources; same arguments and results.

    Every output starts as NaN and stands between two guards, which are checked after every call.
    """

    def __init__(self, emulator: Emulator, shared_memory: int = A100) -> None:
        self._emulator = emulator
        self._shared_memory = shared_memory

    @cached_property
    def _library(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self._emulator.library(SOURCE)))

    def forward(
        self, q_left: Tensor, q_right: Tensor, v_left: Tensor, v_right: Tensor, k_left: Tensor | None,
        k_right: Tensor | None, lag_bias: Tensor | None, scale: float, max_lag: int | None,
    ) -> Tensors:  # fmt: skip
        inputs = [q_left, q_right, v_left, v_right, k_left, k_right]
        r, n, heads, _ = q_left.shape
        m, dv = q_right.shape[1], v_left.shape[3]
        out = Outputs()
        o_left, o_right = (out.new((r, length, heads, dv), q_left.dtype) for length in (n, m))
        lse_left, lse_right = (out.new((r, heads, length), torch.float32) for length in (n, m))
        call = self._call(inputs, lag_bias, scale, max_lag)
        self._library.emulated_forward(
            *call, _pointers(o_left, o_right), pointer(lse_left), pointer(lse_right)
        )
        out.check()
        return tuple(_written(t) for t in (o_left, o_right, lse_left, lse_right))

    def backward(
        self, do_left: Tensor, do_right: Tensor, q_left: Tensor, q_right: Tensor, v_left: Tensor,
        v_right: Tensor, k_left: Tensor | None, k_right: Tensor | None, lag_bias: Tensor | None,
        o_left: Tensor, o_right: Tensor, lse_left: Tensor, lse_right: Tensor,
        scale: float, max_lag: int | None,
    ) -> Tensors:  # fmt: skip
        inputs = [q_left, q_right, v_left, v_right, k_left, k_right]
        saved = [_rows(t) for t in (o_left, o_right, do_left, do_right)]
        out = Outputs()
        d_inputs = [None if t is None else out.new(tuple(t.shape), t.dtype) for t in inputs]
        d_bias = None if lag_bias is None else out.new(tuple(lag_bias.shape), torch.float32)
        call = self._call(inputs, lag_bias, scale, max_lag)
        self._library.emulated_backward(
            *call, _pointers(*saved), _strides(*saved), pointer(lse_left), pointer(lse_right),
            _pointers(*d_inputs), pointer(d_bias),
        )  # fmt: skip
        none = q_left.new_empty(0)
        out.check()
        return tuple(none.clone() if t is None else _written(t) for t in (*d_inputs, d_bias))

    def _call(
        self, inputs: list[Tensor | None], lag_bias: Tensor | None, scale: float, max_lag: int | None
    ) -> tuple[object, ...]:
        q_left, q_right, v_left, *_ = (t for t in inputs if t is not None)
        inputs = [None if t is None else _rows(t) for t in inputs]
        lag_bias = None if lag_bias is None else lag_bias.contiguous()
        self._alive = (inputs, lag_bias)  # until the next call: ctypes keeps addresses only
        r, n, heads, d = q_left.shape
        sizes = (
            r, n, q_right.shape[1], heads, d, v_left.shape[3], q_left.element_size(),
            -1 if max_lag is None else max_lag, -1 if lag_bias is None else lag_bias.shape[1] // 2,
            self._shared_memory,
        )  # fmt: skip
        return (
            DTYPES.index(q_left.dtype), integers(*sizes), _pointers(*inputs),
            _strides(*inputs), pointer(lag_bias), ctypes.c_float(scale),
        )  # fmt: skip


def _written(output: Tensor) -> Tensor:
    """A copy of an output, without its guards."""
    assert not output.isnan().any(), "an output was not written"
    return output.clone()


def _rows(tensor: Tensor) -> Tensor:
    """As the extension takes it: with contiguous channels."""
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _pointers(*tensors: Tensor | None) -> ctypes.Array[ctypes.c_void_p]:
    return (ctypes.c_void_p * len(tensors))(*(None if t is None else t.data_ptr() for t in tensors))


def _strides(*tensors: Tensor | None) -> ctypes.Array[ctypes.c_int64]:
    flat = [stride for t in tensors for stride in ((0, 0, 0) if t is None else t.stride()[:3])]
    return integers(*flat)


_EMULATION = Emulation("cross_attention", "binaural.kernels.cross_attention.operator")


def emulated_backend(emulator: Emulator, shared_memory: int = A100) -> AbstractContextManager[None]:
    """Inside, backend "cuda" of `cross_attention` takes CPU tensors and runs the emulated kernels."""
    return _EMULATION.backend(EmulatedCrossAttention(emulator, shared_memory))
