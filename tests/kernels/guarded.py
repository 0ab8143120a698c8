"""Outputs of kernels in memory that shows what is not written, and what is written beside them."""

import torch
from torch import Tensor

# Elements on either side of every output that must stay as they are.
_GUARD, _MARK = 256, 64.0


class Outputs:
    """Tensors that start as NaN and stand between guards."""

    def __init__(self) -> None:
        self._buffers: list[tuple[Tensor, int]] = []

    def new(self, shape: tuple[int, ...], dtype: torch.dtype, device: torch.device | str = "cpu") -> Tensor:
        size = torch.Size(shape).numel()
        buffer = torch.full((size + 2 * _GUARD,), _MARK, dtype=dtype, device=device)
        buffer[_GUARD : _GUARD + size] = float("nan")
        self._buffers.append((buffer, size))
        return buffer[_GUARD : _GUARD + size].view(shape)

    def check(self) -> None:
        """Look at all guards."""
        assert self._buffers, "nothing was allocated"
        for buffer, size in self._buffers:
            guards = torch.cat([buffer[:_GUARD], buffer[_GUARD + size :]])
            assert (guards == _MARK).all(), "written outside of an output"
