"""The public function, its autograd and its dispatch to the backends."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.cross_attention import triton_entry
from binaural.kernels.cross_attention.checks import check
from binaural.kernels.cross_attention.reference import reference
from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.autocast import autocast_dtype
from binaural.kernels.dispatch.backends import choose
from binaural.kernels.dispatch.registration import complete_operator, define_operator
from binaural.kernels.dispatch.scalars import to_python

_CUDA_CHANNELS = 128  # kMaxChannels of csrc/cross_attention/cuda_plan.h


def cross_attention(
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None = None,
    k_right: Tensor | None = None,
    *,
    scale: float | None = None,
    max_lag: int | None = None,
    lag_bias: Tensor | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Cross-attention between the time steps of two ears, in both directions.

    With S[i, j] the similarity of left step i with right step j,

        o_left[r, i]  = Σ_j softmax_j(S[i, j]) v_right[r, j]
        o_right[r, j] = Σ_i softmax_i(S[i, j]) v_left[r, i]

    Without keys both directions share S = scale · q_left q_rightᵀ (+ bias). With keys, the first line uses
    S = scale · q_left k_rightᵀ and the second S = scale · k_left q_rightᵀ. Scaled dot-product attention is
    that of Vaswani et al., "Attention Is All You Need", 2017; a cost volume read as attention in both
    directions follows stereo matching (Xu et al., "Unifying Flow, Stereo and Depth Estimation", 2023).

    Kernels never store S (the reference does): memory is O(R · heads · (N + M)) beyond inputs, outputs and
    gradients. Any strides are accepted; a contiguous last dimension is the fastest. Under autocast the inputs
    are cast to its dtype.

    Results have the same bits on every run. On a GPU, though, backend "triton" times several block sizes at
    the first call of a size and keeps its choice in Triton's cache on disk; a new choice, on another machine
    or after that cache was emptied, may add in another order. With
    `torch.use_deterministic_algorithms(True)`, and for a size first called while a CUDA graph is captured,
    the choice is fixed.

    Args:
        q_left: [R, N, heads, d]; R counts independent problems.
        q_right: [R, M, heads, d].
        v_left: [R, N, heads, dv].
        v_right: [R, M, heads, dv].
        k_left: [R, N, heads, d], or None for the shared similarity.
        k_right: [R, M, heads, d]; given with `k_left` or not at all.
        scale: factor of the products; d^-½ if None.
        max_lag: pairs with |j − i| > max_lag are masked. A query whose keys are all masked gets zeros.
        lag_bias: [heads, 2 L + 1], added to S[i, j] at index (j − i) + L where |j − i| ≤ L; learnable. -inf
            masks pairs, as max_lag does.
        backend: one of `binaural.kernels.BACKENDS`; None takes the best available for the tensors.

    Returns:
        o_left [R, N, heads, dv] and o_right [R, M, heads, dv], in the dtype of the inputs.

    Raises:
        TypeError: a dtype that is not float32, bfloat16, float16 or float64, or that differs from q_left's; a
            scale that is no number.
        ValueError: shapes that do not fit, only one of the keys, mixed devices, a bias of the wrong length,
            a scale that is not finite, an unknown backend or one that cannot run this call.
    """
    if isinstance(q_left, Tensor) and (dtype := autocast_dtype(q_left)) is not None:
        q_left, q_right, v_left, v_right = (to_autocast(t, dtype) for t in (q_left, q_right, v_left, v_right))
        k_left = None if k_left is None else to_autocast(k_left, dtype)
        k_right = None if k_right is None else to_autocast(k_right, dtype)
    scale, max_lag = to_python(scale), to_python(max_lag)
    check(q_left, q_right, v_left, v_right, k_left, k_right, scale, max_lag, lag_bias)
    scale, max_lag, lag_bias = normalise_arguments(scale, max_lag, lag_bias, q_left, q_right)
    name = choose("cross_attention", backend, q_left, WHY_NOT_COVERED)
    # The kernels do not take empty tensors.
    if name == "reference" or 0 in (q_left.shape[0], q_left.shape[1], q_right.shape[1]):
        return reference(
            q_left, q_right, v_left, v_right, k_left, k_right, scale=scale, max_lag=max_lag, lag_bias=lag_bias
        )
    rest = (k_left, k_right, lag_bias, scale, max_lag)
    most = _MOST_VALUE_CHANNELS[name](q_left.dtype)
    if most is None or v_left.shape[3] <= most:
        return _run(name, q_left, q_right, v_left, v_right, *rest)
    # More channels of values than a kernel takes: one call for each part of them.
    parts = [
        _run(name, q_left, q_right, *values, *rest)
        for values in zip(v_left.split(most, dim=3), v_right.split(most, dim=3), strict=True)
    ]
    o_left, o_right = (torch.cat(ear, dim=3) for ear in zip(*parts, strict=True))
    return o_left, o_right


def _run(backend: str, *arguments: Any) -> tuple[Tensor, Tensor]:
    if torch.is_grad_enabled() and any(isinstance(t, Tensor) and t.requires_grad for t in arguments):
        return _CrossAttention.apply(backend, *arguments)[:2]
    return _FORWARD[backend](*arguments)[:2]


def normalise_arguments(
    scale: float | None, max_lag: int | None, lag_bias: Tensor | None, q_left: Tensor, q_right: Tensor
) -> tuple[float, int | None, Tensor | None]:
    """The arguments as all kernels take them.

    Returns:
        scale as a number; max_lag, or None if it excludes no pair, so that it fits the kernels' 32-bit
        integers; lag_bias in float32, or in float64 for float64 inputs.
    """
    if scale is None:
        scale = q_left.shape[3] ** -0.5
    if max_lag is not None and max_lag >= max(q_left.shape[1], q_right.shape[1]) - 1:
        max_lag = None
    if lag_bias is not None:
        lag_bias = lag_bias.to(torch.promote_types(q_left.dtype, torch.float32))
    return scale, max_lag, lag_bias


def to_autocast(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Cast as autocast does: floating-point tensors only, and not float64."""
    cast = isinstance(tensor, Tensor) and tensor.is_floating_point() and tensor.dtype != torch.float64
    return tensor.to(dtype) if cast else tensor


class _CrossAttention(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators of one backend.

    It is not marked `once_differentiable`: with that mark a second-order term can vanish silently, while
    the opaque backward operator, having no gradient formula, raises.
    """

    # A separate `setup_context` would cost 30 µs a call, for inspecting the signature.
    @staticmethod
    def forward(
        ctx: Any,
        backend: str,
        q_left: Tensor,
        q_right: Tensor,
        v_left: Tensor,
        v_right: Tensor,
        k_left: Tensor | None,
        k_right: Tensor | None,
        lag_bias: Tensor | None,
        scale: float,
        max_lag: int | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inputs = (q_left, q_right, v_left, v_right, k_left, k_right, lag_bias)
        outputs = _FORWARD[backend](*inputs, scale, max_lag)
        ctx.save_for_backward(*inputs, *outputs)
        ctx.mark_non_differentiable(*outputs[2:])
        ctx.set_materialize_grads(False)  # else lse gets gradients of zeros
        ctx.backend, ctx.scale, ctx.max_lag = backend, scale, max_lag
        return outputs

    @staticmethod
    def backward(
        ctx: Any, do_left: Tensor | None, do_right: Tensor | None, *_: Any
    ) -> tuple[Tensor | None, ...]:
        q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, *saved = ctx.saved_tensors
        do_left = torch.zeros_like(saved[0]) if do_left is None else do_left
        do_right = torch.zeros_like(saved[1]) if do_right is None else do_right
        dq_left, dq_right, dv_left, dv_right, dk_left, dk_right, dlag_bias = _BACKWARD[ctx.backend](
            do_left, do_right, q_left, q_right, v_left, v_right, k_left, k_right, lag_bias, *saved,
            ctx.scale, ctx.max_lag,
        )  # fmt: skip
        return (
            None,
            dq_left,
            dq_right,
            dv_left,
            dv_right,
            None if k_left is None else dk_left,
            None if k_right is None else dk_right,
            None if lag_bias is None else dlag_bias,
            None,
            None,
        )


def _fake_forward(
    q_left: Tensor, q_right: Tensor, v_left: Tensor, v_right: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    r, n, heads, _d = q_left.shape
    m, dv = q_right.shape[1], v_left.shape[3]
    wide = torch.promote_types(q_left.dtype, torch.float32)
    return (
        q_left.new_empty(r, n, heads, dv),
        q_left.new_empty(r, m, heads, dv),
        q_left.new_empty(r, heads, n, dtype=wide),
        q_left.new_empty(r, heads, m, dtype=wide),
    )


def _fake_backward(
    do_left: Tensor,
    do_right: Tensor,
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None,
    k_right: Tensor | None,
    lag_bias: Tensor | None,
    *_: Any,
) -> tuple[Tensor, ...]:
    inputs = (q_left, q_right, v_left, v_right, k_left, k_right, lag_bias)
    return tuple(
        q_left.new_empty(0) if t is None else torch.empty_like(t, memory_format=torch.contiguous_format)
        for t in inputs
    )


def _why_cuda_does_not_cover(q_left: Tensor) -> str | None:
    if q_left.dtype == torch.float64:
        return "its kernels compute in float32, and these tensors are float64"
    if q_left.shape[3] > _CUDA_CHANNELS:
        channels = q_left.shape[3]
        return f"its kernels take at most {_CUDA_CHANNELS} channels of q per head, and these have {channels}"
    return None


# The gradients of absent k_* and lag_bias are empty tensors, since an operator cannot return None.
# lse_* is the natural logarithm of the softmax's denominator, -inf for a query whose keys are all masked;
# float32, or float64 for float64 inputs. csrc/schema.cpp has the same two schemas.
FORWARD_SCHEMA = (
    "(Tensor q_left, Tensor q_right, Tensor v_left, Tensor v_right, Tensor? k_left, Tensor? k_right,"
    " Tensor? lag_bias, float scale, int? max_lag)"
    " -> (Tensor o_left, Tensor o_right, Tensor lse_left, Tensor lse_right)"
)
BACKWARD_SCHEMA = (
    "(Tensor do_left, Tensor do_right, Tensor q_left, Tensor q_right, Tensor v_left, Tensor v_right,"
    " Tensor? k_left, Tensor? k_right, Tensor? lag_bias, Tensor o_left, Tensor o_right, Tensor lse_left,"
    " Tensor lse_right, float scale, int? max_lag)"
    " -> (Tensor dq_left, Tensor dq_right, Tensor dv_left, Tensor dv_right, Tensor dk_left,"
    " Tensor dk_right, Tensor dlag_bias)"
)

_FORWARD: dict[str, Any] = {}
_BACKWARD: dict[str, Any] = {}
# For each backend, why it leaves a call with this q_left to the next one, or None.
WHY_NOT_COVERED: dict[str, Any] = {"cpp": lambda q_left: None, "cuda": _why_cuda_does_not_cover}
# For each backend, how many channels of values its kernels take at a time for q of this dtype; None if any.
_MOST_VALUE_CHANNELS: dict[str, Any] = {"cpp": lambda dtype: None, "cuda": lambda dtype: _CUDA_CHANNELS}

if extension.WHY_NOT_LOADED is None:
    _FORWARD["cpp"] = _FORWARD["cuda"] = complete_operator("cross_attention_forward", _fake_forward)
    _BACKWARD["cpp"] = _BACKWARD["cuda"] = complete_operator("cross_attention_backward", _fake_backward)

_FORWARD["triton"] = define_operator(
    "cross_attention_forward_triton", FORWARD_SCHEMA, triton_entry.forward, _fake_forward
)
_BACKWARD["triton"] = define_operator(
    "cross_attention_backward_triton", BACKWARD_SCHEMA, triton_entry.backward, _fake_backward
)
WHY_NOT_COVERED["triton"] = triton_entry.why_not_covered
_MOST_VALUE_CHANNELS["triton"] = triton_entry.most_value_channels
