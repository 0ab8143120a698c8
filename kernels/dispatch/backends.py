"""Which implementation of an operation runs: what is usable on this machine, and what was asked for."""

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from binaural.kernels.dispatch import extension

BACKENDS = ("reference", "cpp", "triton", "cuda")
OPERATIONS = ("cross_attention", "edge_aware_loss")

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
    if not extension.has_kernel(f"{operation}_forward", {"cpp": "CPU", "cuda": "CUDA"}[backend]):
        return f"the extension was built without {'a CPU' if backend == 'cpp' else 'a CUDA'} kernel of it"
    if backend == "cuda" and not torch.cuda.is_available():
        return "no NVIDIA GPU is visible"
    return None


# Looked up once: what is built and visible does not change while the process runs, and torch.compile
# reads it as a constant.
WHY_UNAVAILABLE: dict[tuple[str, str], str | None] = {
    (backend, operation): _why_unavailable(backend, operation)
    for backend in BACKENDS
    for operation in OPERATIONS
}


def available_backends() -> tuple[str, ...]:
    """The backends that can run every operation on this machine, among `BACKENDS`."""
    return tuple(
        backend
        for backend in BACKENDS
        if all(WHY_UNAVAILABLE[backend, operation] is None for operation in OPERATIONS)
    )


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Run every operation called inside with `backend`, in all threads, unless the call names another.

    Raises:
        ValueError: `backend` is not one of `BACKENDS`.
    """
    _check_name(backend)
    _requested.append(backend)
    try:
        yield
    finally:
        # The last of this name: another thread may have asked since.
        del _requested[len(_requested) - 1 - _requested[::-1].index(backend)]


def requested_backend() -> str | None:
    """The one of the innermost `use_backend`."""
    return _requested[-1] if _requested else None


def choose(
    operation: str,
    backend: str | None,
    tensor: Tensor,
    why_not_covered: Mapping[str, Callable[[Tensor], str | None]],
) -> str:
    """The backend that runs this call.

    Args:
        operation: one of `OPERATIONS`.
        backend: the one asked for, or None: the innermost `use_backend`, else the best that covers the call.
        tensor: the first of the call, on the device of all.
        why_not_covered: for each backend but the reference, a function that says in one line why it does
            not cover a call with that tensor (its shape, its dtype), or None where it does.

    Raises:
        ValueError: the backend asked for is unknown, not available here, or does not cover the call.
    """
    if backend is None:
        backend = requested_backend()
    if backend is not None:
        _check_name(backend)
        reason = _why_not(operation, backend, tensor, why_not_covered)
        if reason is not None:
            raise ValueError(f"backend {backend!r} cannot run {operation} here: {reason}")
        return backend
    for candidate in _PREFERENCE.get(tensor.device.type, ("reference",)):
        if _why_not(operation, candidate, tensor, why_not_covered) is None:
            return candidate
    raise AssertionError("the reference covers everything")


def _why_not(
    operation: str,
    backend: str,
    tensor: Tensor,
    why_not_covered: Mapping[str, Callable[[Tensor], str | None]],
) -> str | None:
    if backend == "reference":
        return None
    reason = WHY_UNAVAILABLE[backend, operation]
    if reason is not None:
        return reason
    # Triton's interpreter takes tensors of the CPU; without it, only the GPU's.
    on_cpu = backend == "cpp" or (backend == "triton" and os.environ.get("TRITON_INTERPRET") == "1")
    if on_cpu and not tensor.is_cpu:
        return f"it runs on CPU tensors, and these are on {tensor.device}"
    if not on_cpu and not tensor.is_cuda:
        return f"it runs on CUDA tensors, and these are on {tensor.device}"
    if backend not in why_not_covered:
        return "it has no kernel for it"
    return why_not_covered[backend](tensor)


def _check_name(backend: str) -> None:
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(map(repr, BACKENDS))} or None, got {backend!r}")
