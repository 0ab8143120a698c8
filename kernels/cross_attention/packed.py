"""Cross-attention of two ears in one packed tensor, the output of one projection, without splitting it."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.cross_attention import triton_entry
from binaural.kernels.cross_attention.checks import DTYPES, check_lag_bias, check_max_lag, check_scale
from binaural.kernels.cross_attention.operator import (
    WHY_NOT_COVERED,
    cross_attention,
    normalise_arguments,
    to_autocast,
)
from binaural.kernels.cross_attention.packed_views import unpack, unpack_ears
from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.autocast import autocast_dtype
from binaural.kernels.dispatch.backends import choose
from binaural.kernels.dispatch.registration import complete_operator, define_operator
from binaural.kernels.dispatch.scalars import to_python


def packed_cross_attention(
    packed: Tensor,
    heads: int,
    query_channels: int,
    value_channels: int,
    *,
    scale: float | None = None,
    max_lag: int | None = None,
    lag_bias: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """`cross_attention` of two ears that one projection made, both in one tensor, read in place.

    Backends "cpp" and "triton" write the outputs of both ears into one tensor and all gradients into another;
    the other backends, and float32 with more than 64 value channels per head on "triton", run as
    `cross_attention` on views of `packed`.

    Args:
        packed: [2 R, N, query_channels + value_channels (+ query_channels)], the rows of the left ear before
            those of the right; each step has the queries, the values and, for a separate similarity, the
            keys, [heads, d or dv] each.
        heads: number of heads.
        query_channels: heads · d.
        value_channels: heads · dv.
        scale, max_lag, lag_bias, backend: see `cross_attention`.

    Returns:
        [2 R, N, heads, dv], the rows of the left ear before those of the right.

    Raises:
        TypeError, ValueError: `packed` does not fit the other arguments, or what `cross_attention` refuses.
    """
    if isinstance(packed, Tensor) and (dtype := autocast_dtype(packed)) is not None:
        packed = to_autocast(packed, dtype)
    heads, query_channels, value_channels = (to_python(n) for n in (heads, query_channels, value_channels))
    scale, max_lag = to_python(scale), to_python(max_lag)
    _check(packed, heads, query_channels, value_channels)
    # Not by chunk, whose sizes torch.export cannot derive from a symbolic batch.
    rows = packed.shape[0] // 2
    q_left = unpack(packed.detach(), heads, query_channels, value_channels)[0][:rows]
    check_scale(scale, packed.dtype)
    check_max_lag(max_lag)
    check_lag_bias(lag_bias, q_left)
    name = choose("cross_attention", backend, q_left, WHY_NOT_COVERED)
    largest = triton_entry.most_value_channels(packed.dtype) if name == "triton" else None
    takes_values = largest is None or value_channels // heads <= largest
    if name not in _FORWARD or not takes_values or q_left.numel() == 0:
        ears = unpack_ears(packed, heads, query_channels, value_channels)
        options: dict[str, Any] = {"scale": scale, "max_lag": max_lag, "lag_bias": lag_bias}
        return torch.cat(cross_attention(*ears, **options, backend=backend))
    scale, max_lag, lag_bias = normalise_arguments(scale, max_lag, lag_bias, q_left, q_left)
    arguments = (packed, heads, query_channels, value_channels, lag_bias, scale, max_lag)
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in arguments):
        return _PackedCrossAttention.apply(name, *arguments)[0]
    o: Tensor = _FORWARD[name](*arguments)[0]
    return o


class _PackedCrossAttention(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(
        ctx: Any,
        backend: str,
        packed: Tensor,
        heads: int,
        query_channels: int,
        value_channels: int,
        lag_bias: Tensor | None,
        scale: float,
        max_lag: int | None,
    ) -> tuple[Tensor, Tensor]:
        o, lse = _FORWARD[backend](packed, heads, query_channels, value_channels, lag_bias, scale, max_lag)
        ctx.save_for_backward(packed, lag_bias, o, lse)
        ctx.mark_non_differentiable(lse)
        ctx.set_materialize_grads(False)
        ctx.sizes = heads, query_channels, value_channels
        ctx.backend, ctx.scale, ctx.max_lag = backend, scale, max_lag
        return o, lse

    @staticmethod
    def backward(ctx: Any, do: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if do is None:
            return (None,) * 8
        packed, lag_bias, o, lse = ctx.saved_tensors
        dpacked, dlag_bias = _BACKWARD[ctx.backend](
            do, packed, *ctx.sizes, lag_bias, o, lse, ctx.scale, ctx.max_lag
        )
        return None, dpacked, None, None, None, None if lag_bias is None else dlag_bias, None, None


def _check(packed: Tensor, heads: int, query_channels: int, value_channels: int) -> None:
    if not isinstance(packed, Tensor):
        raise TypeError(f"packed must be a tensor, got {type(packed).__name__}")
    if packed.dtype not in DTYPES:
        raise TypeError(f"packed must be float32, bfloat16, float16 or float64, got {packed.dtype}")
    sizes = {"heads": heads, "query_channels": query_channels, "value_channels": value_channels}
    for name, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"{name} must be a whole number of at least 1, got {size!r}")
        if size % heads:
            raise ValueError(f"{name} must be divisible by heads, got {size} and {heads}")
    channels = query_channels + value_channels
    if (
        packed.dim() != 3
        or packed.shape[0] % 2
        or packed.shape[2] not in (channels, channels + query_channels)
    ):
        raise ValueError(
            f"packed must be [2 R, N, {channels} or, with keys, {channels + query_channels}], "
            f"got {list(packed.shape)}"
        )


def _fake_forward(
    packed: Tensor, heads: int, query_channels: int, value_channels: int, *_: Any
) -> tuple[Tensor, Tensor]:
    rows, time, _channels = packed.shape
    wide = torch.promote_types(packed.dtype, torch.float32)
    return (
        packed.new_empty(rows, time, heads, value_channels // heads),
        packed.new_empty(rows, heads, time, dtype=wide),
    )


def _fake_backward(
    do: Tensor,
    packed: Tensor,
    heads: int,
    query_channels: int,
    value_channels: int,
    lag_bias: Tensor | None,
    *_: Any,
) -> tuple[Tensor, Tensor]:
    dlag_bias = packed.new_empty(0) if lag_bias is None else lag_bias.new_empty(lag_bias.shape)
    return packed.new_empty(packed.shape), dlag_bias


# csrc/schema.cpp has the same two schemas.
_FORWARD_SCHEMA = (
    "(Tensor packed, int heads, int query_channels, int value_channels, Tensor? lag_bias, float scale,"
    " int? max_lag) -> (Tensor o, Tensor lse)"
)
_BACKWARD_SCHEMA = (
    "(Tensor grad_o, Tensor packed, int heads, int query_channels, int value_channels, Tensor? lag_bias,"
    " Tensor o, Tensor lse, float scale, int? max_lag) -> (Tensor dpacked, Tensor dlag_bias)"
)

_FORWARD: dict[str, Any] = {
    "triton": define_operator(
        "cross_attention_packed_forward_triton", _FORWARD_SCHEMA, triton_entry.packed_forward, _fake_forward
    )
}
_BACKWARD: dict[str, Any] = {
    "triton": define_operator(
        "cross_attention_packed_backward_triton",
        _BACKWARD_SCHEMA,
        triton_entry.packed_backward,
        _fake_backward,
    )
}
if extension.WHY_NOT_LOADED is None:
    _FORWARD["cpp"] = complete_operator("cross_attention_packed_forward", _fake_forward)
    _BACKWARD["cpp"] = complete_operator("cross_attention_packed_backward", _fake_backward)
