"""The operators of the Triton kernels. The first call imports Triton."""

from typing import Any

import torch
from torch import Tensor

# Per head: more would take more shared memory, or in float32 more registers, than a program has.
MOST_CHANNELS = 128
MOST_VALUE_CHANNELS_FLOAT32 = 64


def most_value_channels(dtype: torch.dtype) -> int:
    return MOST_VALUE_CHANNELS_FLOAT32 if dtype == torch.float32 else MOST_CHANNELS


def why_not_covered(q_left: Tensor) -> str | None:
    """Why the Triton kernels leave this call to the next backend, in one line; None where they do not."""
    if q_left.dtype == torch.float64:
        return "its kernels compute in float32, and these tensors are float64"
    channels = q_left.shape[3]
    if channels > MOST_CHANNELS:
        return f"its kernels take at most {MOST_CHANNELS} channels of q per head, and these have {channels}"
    return None


def forward(*arguments: Any) -> tuple[Tensor, ...]:
    from binaural.kernels.cross_attention import triton_plan

    return triton_plan.forward(*arguments)


def backward(*arguments: Any) -> tuple[Tensor, ...]:
    from binaural.kernels.cross_attention import triton_plan

    return triton_plan.backward(*arguments)


def packed_forward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from binaural.kernels.cross_attention import triton_packed

    return triton_packed.forward(*arguments)


def packed_backward(*arguments: Any) -> tuple[Tensor, Tensor]:
    from binaural.kernels.cross_attention import triton_packed

    return triton_packed.backward(*arguments)
