"""Views of queries, values and keys in the packed tensor of `packed_cross_attention`."""

from typing import Any

from torch import Tensor


def unpack(packed: Tensor, heads: int, query_channels: int, value_channels: int) -> list[Tensor]:
    """[R, N, channels] → queries, values and, if there are, keys, [R, N, heads, d or dv] each."""
    keys = packed.shape[2] - query_channels - value_channels
    sizes = [query_channels, value_channels] + ([keys] if keys else [])
    return [part.unflatten(2, (heads, -1)) for part in packed.split(sizes, dim=2)]


def unpack_ears(packed: Tensor, heads: int, query_channels: int, value_channels: int) -> tuple[Any, ...]:
    """[2 R, N, channels] → q_left, q_right, v_left, v_right, k_left, k_right; keys are None if absent."""
    # Not by chunk, whose sizes torch.export cannot derive from a symbolic batch.
    rows = [packed.shape[0] // 2] * 2
    ears = [ear for part in unpack(packed, heads, query_channels, value_channels) for ear in part.split(rows)]
    return (*ears, *[None] * (6 - len(ears)))
