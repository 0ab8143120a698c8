"""Inputs and checks that the tests of the fused layers share."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.bfloat16)


def make_map(*shape: int, dtype: torch.dtype = torch.float32, offset: float = 0.0) -> Tensor:
    """A random channels-last map that requires a gradient."""
    values = torch.randn(shape) * 2 + offset
    return values.to(dtype).to(memory_format=torch.channels_last).requires_grad_()


def make_slice(batch: int, channels: int, height: int, width: int) -> Tensor:
    """A slice of the channels of a channels-last map, as the gradient of a concatenation may be."""
    whole = torch.randn(batch, channels + 3, height, width)
    return whole.to(memory_format=torch.channels_last)[:, 3:]


def with_dtype(tensors: Iterable[Tensor], dtype: torch.dtype) -> list[Tensor]:
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


def check(results: Sequence[Tensor], expected: Sequence[Tensor], plain: Sequence[Tensor]) -> None:
    """The kernel's error is at most twice that of PyTorch in the same dtype, plus rounding."""
    for result, exact, low in zip(results, expected, plain, strict=True):
        assert result.dtype == low.dtype
        error, allowed = ((t.double() - exact).norm() for t in (result, low))
        rounding = 2 * torch.finfo(result.dtype).eps * exact.norm()
        assert error <= 2 * allowed + rounding


def check_threads(run: Callable[[], Sequence[Tensor]]) -> None:
    """The results of `run` are the same bits on any number of threads."""
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run())
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(one.equal(other) for one, other in zip(results[0], others, strict=True))
