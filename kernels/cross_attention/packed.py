"""Cross-attention of two ears in one tensor, as one projection writes them: no parts to join again."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.cross_attention.checks import DTYPES, check_lag_bias, check_max_lag, check_scale
from binaural.kernels.cross_attention.operator import WHY_NOT_COVERED, cross_attention, settle, to_autocast
from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.autocast import autocast_dtype
from binaural.kernels.dispatch.backends import choose
from binaural.kernels.dispatch.registration import complete_operator
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
    """`cross_attention` of ears that one projection made: both in one tensor, read in place.

    The C++ kernels write what both ears read into one tensor, and all gradients into another; the other
    backends run as `cross_attention` on the parts of `packed`.

    Args:
        packed: [2 R, N, query_channels + value_channels (+ query_channels)], the rows of the left ear before
            those of the right; of each step the queries, the values and, for a separate similarity, the keys,
            [heads, d or dv] each.
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
    if choose("cross_attention", backend, q_left, WHY_NOT_COVERED) != "cpp" or q_left.numel() == 0:
        parts = unpack(packed, heads, query_channels, value_channels)
        of_ears = [ear for part in parts for ear in part.split([rows, rows])]
        options: dict[str, Any] = {"scale": scale, "max_lag": max_lag, "lag_bias": lag_bias}
        return torch.cat(cross_attention(*of_ears, **options, backend=backend))
    scale, max_lag, lag_bias = settle(scale, max_lag, lag_bias, q_left)
    arguments = (packed, heads, query_channels, value_channels, lag_bias, scale, max_lag)
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in arguments):
        return _PackedCrossAttention.apply(*arguments)[0]
    o: Tensor = _forward(*arguments)[0]
    return o


def unpack(packed: Tensor, heads: int, query_channels: int, value_channels: int) -> list[Tensor]:
    """[R, N, channels] → queries, values and, if there are, keys, [R, N, heads, d or dv] each."""
    keys = packed.shape[2] - query_channels - value_channels
    sizes = [query_channels, value_channels] + ([keys] if keys else [])
    return [part.unflatten(2, (heads, -1)) for part in packed.split(sizes, dim=2)]


class _PackedCrossAttention(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators."""

    @staticmethod
    def forward(
        ctx: Any,
        packed: Tensor,
        heads: int,
        query_channels: int,
        value_channels: int,
        lag_bias: Tensor | None,
        scale: float,
        max_lag: int | None,
    ) -> tuple[Tensor, Tensor]:
        o, lse = _forward(packed, heads, query_channels, value_channels, lag_bias, scale, max_lag)
        ctx.save_for_backward(packed, lag_bias, o, lse)
        ctx.mark_non_differentiable(lse)
        ctx.set_materialize_grads(False)
        ctx.sizes = heads, query_channels, value_channels
        ctx.scale, ctx.max_lag = scale, max_lag
        return o, lse

    @staticmethod
    def backward(ctx: Any, do: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if do is None:
            return (None,) * 7
        packed, lag_bias, o, lse = ctx.saved_tensors
        dpacked, dlag_bias = _backward(do, packed, *ctx.sizes, lag_bias, o, lse, ctx.scale, ctx.max_lag)
        return dpacked, None, None, None, None if lag_bias is None else dlag_bias, None, None


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


if extension.WHY_NOT_LOADED is None:
    _forward = complete_operator("cross_attention_packed_forward", _fake_forward)
    _backward = complete_operator("cross_attention_packed_backward", _fake_backward)
