"""Choose which implementation of an operation runs, by what this machine has and what was requested."""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.transforms import WHY_NOT_TRANSFORMED, is_transformed

BACKENDS = ("reference", "cpp", "triton", "cuda")

# The backends of each operation. The fused layers have CPU kernels alone: on a GPU torch.compile fuses them.
OPERATIONS: dict[str, tuple[str, ...]] = {
    "cross_attention": BACKENDS,
    "edge_aware_loss": BACKENDS,
    "add_mirrored": ("reference", "cpp"),
    "batch_norm_relu": ("reference", "cpp"),
    "conv3x3": ("reference", "cpp"),
    "upsample_concat": ("reference", "cpp"),
}

# Operators of the extension that are not named after their operation.
_OPERATORS = {"conv3x3": "conv_weight_gradient"}

# Best first. On a GPU, Triton comes first because it is tuned at run time.
_PREFERENCE = {"cuda": ("triton", "cuda", "reference"), "cpu": ("cpp", "reference")}

# Innermost last. A global, not a ContextVar: torch.compile of 2.11 cannot read one, and recompiles when a
# global changes.
_requested: list[str] = []


def _why_unavailable(backend: str, operation: str) -> str | None:
    """Why `backend` cannot run `operation` on this machine, in one line; None where it can."""
    if backend == "reference":
        return None
    if backend == "triton":
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed"
        if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
            return "no NVIDIA GPU is visible (TRITON_INTERPRET=1 runs it on the CPU, for tests)"
        return None
    if extension.WHY_NOT_LOADED is not None:
        return extension.WHY_NOT_LOADED
    operator = _OPERATORS.get(operation, f"{operation}_forward")
    if not extension.has_kernel(operator, {"cpp": "CPU", "cuda": "CUDA"}[backend]):
        return f"the extension was built without {'a CPU' if backend == 'cpp' else 'a CUDA'} kernel of it"
    if backend == "cuda" and not torch.cuda.is_available():
        return "no NVIDIA GPU is visible"
    return None


# Computed once: what is built and visible does not change while the process runs, and torch.compile takes
# it for a constant.
WHY_UNAVAILABLE: dict[tuple[str, str], str | None] = {
    (backend, operation): _why_unavailable(backend, operation)
    for operation, backends in OPERATIONS.items()
    for backend in backends
}


def available_backends() -> tuple[str, ...]:
    """The backends, among `BACKENDS`, that can run on this machine every operation they have kernels of."""
    return tuple(
        backend
        for backend in BACKENDS
        if all(reason is None for (name, _), reason in WHY_UNAVAILABLE.items() if name == backend)
    )


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run the operations called inside with `backend`, in all threads, unless a call names another.

    An operation without kernels of `backend` runs as if none were requested: inside `use_backend("triton")`
    attention and loss run on Triton, and the fused layers, which have C++ kernels alone, on the best backend
    for their tensors. If the operation has such kernels but they cannot run the call (the extension is not
    built, the tensors are on another device, of another dtype or memory format), the call raises ValueError.

    Raises:
        ValueError: `backend` is not one of `BACKENDS`.
    """
    _check_name(backend)
    _requested.append(backend)
    try:
        yield
    finally:
        # The last of this name: another thread may have entered its own context since.
        del _requested[len(_requested) - 1 - _requested[::-1].index(backend)]


def requested_backend() -> str | None:
    """The backend of the innermost `use_backend`."""
    return _requested[-1] if _requested else None


def choose(
    operation: str,
    backend: str | None,
    tensor: Tensor,
    why_not_covered: Mapping[str, Callable[..., str | None]],
    *arguments: Any,
) -> str:
    """Choose the backend that runs this call.

    Args:
        operation: one of `OPERATIONS`.
        backend: the one that the call names, or None: the innermost `use_backend`, else the best that covers
            the call.
        tensor: the first tensor of the call; all are on its device.
        why_not_covered: for each backend but the reference, a function that returns in one line why its
            kernels do not cover a call with `tensor` and `arguments` (shapes, dtypes), or None where they do.
        arguments: further arguments of these functions.

    Raises:
        ValueError: the backend is unknown, not available here, or does not cover the call.
    """
    if backend is None:
        backend = requested_backend()
    if backend is not None:
        _check_name(backend)
    if backend in OPERATIONS[operation]:
        reason = _why_not(operation, backend, tensor, why_not_covered, arguments)
        if reason is not None:
            raise ValueError(f"backend {backend!r} cannot run {operation} here: {reason}")
        return backend
    for candidate in _PREFERENCE.get(tensor.device.type, ("reference",)):
        if candidate not in OPERATIONS[operation]:
            continue
        if _why_not(operation, candidate, tensor, why_not_covered, arguments) is None:
            return candidate
    raise AssertionError("the reference covers everything")


def _why_not(
    operation: str,
    backend: str,
    tensor: Tensor,
    why_not_covered: Mapping[str, Callable[..., str | None]],
    arguments: tuple[Any, ...],
) -> str | None:
    """Why `backend` cannot run this call, in one line; None where it can."""
    if backend == "reference":
        return None
    reason = WHY_UNAVAILABLE[backend, operation]
    if reason is not None:
        return reason
    if is_transformed():
        return WHY_NOT_TRANSFORMED
    # Triton's interpreter takes tensors on the CPU; Triton itself, like CUDA, tensors on a GPU.
    on_cpu = backend == "cpp" or (backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1")
    if on_cpu and not tensor.is_cpu:
        return f"it runs on CPU tensors, and these are on {tensor.device}"
    if not on_cpu and not tensor.is_cuda:
        return f"it runs on CUDA tensors, and these are on {tensor.device}"
    return why_not_covered[backend](tensor, *arguments)


def _check_name(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))} or None, got {backend!r}")
