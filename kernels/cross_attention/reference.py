"""The definition of the operation, in plain PyTorch: every kernel is tested against it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from binaural.kernels.dispatch.autocast import without_autocast


def reference(
    q_left: Tensor,  # [R, N, heads, d]
    q_right: Tensor,  # [R, M, heads, d]
    v_left: Tensor,  # [R, N, heads, dv]
    v_right: Tensor,  # [R, M, heads, dv]
    k_left: Tensor | None = None,  # [R, N, heads, d]
    k_right: Tensor | None = None,  # [R, M, heads, d]
    *,
    scale: float,
    max_lag: int | None = None,
    lag_bias: Tensor | None = None,  # [heads, 2 L + 1]
) -> tuple[Tensor, Tensor]:
    """Cross-attention of `binaural.kernels.cross_attention`, with the similarity matrix materialised.

    Computes in float32, or in float64 for float64 inputs, and returns the inputs' dtype.
    """
    dtype = q_left.dtype
    wide = torch.promote_types(dtype, torch.float32)
    # Autocast would turn the products below back into low precision: the definition must not depend on it.
    with without_autocast(q_left):
        ql, qr, vl, vr = (t.to(wide) for t in (q_left, q_right, v_left, v_right))
        allowed, bias = _lags(q_left.shape[1], q_right.shape[1], max_lag, lag_bias, q_left.device)
        if k_left is None or k_right is None:
            left_to_right = right_to_left = _similarity(ql, qr, scale, bias)
        else:
            left_to_right = _similarity(ql, k_right.to(wide), scale, bias)
            right_to_left = _similarity(k_left.to(wide), qr, scale, bias)
        o_left = torch.einsum("rhnm,rmhe->rnhe", _softmax(left_to_right, allowed, dim=-1), vr)
        o_right = torch.einsum("rhnm,rnhe->rmhe", _softmax(right_to_left, allowed, dim=-2), vl)
    return o_left.to(dtype), o_right.to(dtype)


def _similarity(left: Tensor, right: Tensor, scale: float, bias: Tensor | None) -> Tensor:
    """S [R, heads, N, M] of left [R, N, heads, d] with right [R, M, heads, d]."""
    similarity = torch.einsum("rnhd,rmhd->rhnm", left, right) * scale
    return similarity if bias is None else similarity + bias


def _lags(
    n: int, m: int, max_lag: int | None, lag_bias: Tensor | None, device: torch.device
) -> tuple[Tensor, Tensor | None]:
    """Which pairs may match, bool [N, M], and the bias of each pair, [heads, N, M], by lag j − i."""
    lag = torch.arange(m, device=device)[None, :] - torch.arange(n, device=device)[:, None]
    allowed = torch.ones_like(lag, dtype=torch.bool) if max_lag is None else lag.abs() <= max_lag
    if lag_bias is None:
        return allowed, None
    longest = lag_bias.shape[1] // 2
    # One zero beyond either end: the bias of all lags that it does not cover.
    padded = F.pad(lag_bias, (1, 1))
    return allowed, padded[:, (lag + longest + 1).clamp(0, 2 * longest + 2)]


def _softmax(similarity: Tensor, allowed: Tensor, dim: int) -> Tensor:
    """Softmax over the allowed pairs; zeros, with zero gradient, where a query has no partner at all."""
    lowest = torch.finfo(similarity.dtype).min
    allowed = allowed & (similarity != float("-inf"))  # a bias of -inf removes a pair too
    return torch.softmax(similarity.masked_fill(~allowed, lowest), dim) * allowed
