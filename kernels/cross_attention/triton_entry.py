"""What the operator calls of the Triton kernels. Triton itself is imported at the first call."""

from typing import Any

import torch
from torch import Tensor

# Wider heads would take more of the chip than a program has.
MAX_CHANNELS = 256


def why_not_covered(q_left: Tensor, v_left: Tensor) -> str | None:
    """Why the Triton kernels leave this call to the next backend, in one line; None where they do not."""
    if q_left.dtype == torch.float64:
        return "its kernels compute in float32, and these tensors are float64"
    channels = max(q_left.shape[3], v_left.shape[3])
    if channels > MAX_CHANNELS:
        return f"its kernels take at most {MAX_CHANNELS} channels per head, and these have {channels}"
    return None


def forward(*arguments: Any) -> tuple[Tensor, ...]:
    from kernels.cross_attention import triton_launch

    return triton_launch.forward(*arguments)


def backward(*arguments: Any) -> tuple[Tensor, ...]:
    from kernels.cross_attention import triton_launch

    return triton_launch.backward(*arguments)
