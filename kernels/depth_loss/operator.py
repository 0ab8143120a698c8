"""The public functions, their autograd and their dispatch to the backends."""

from typing import Any

import torch
from torch import Tensor

from binaural.kernels.depth_loss import triton_entry
from binaural.kernels.depth_loss.checks import check, check_weight, check_weight_tensor, check_weights
from binaural.kernels.depth_loss.reference import reference
from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.backends import choose
from binaural.kernels.dispatch.registration import complete_operator, define_operator
from binaural.kernels.dispatch.scalars import to_python


def edge_aware_loss(
    pred: Tensor,
    target: Tensor,
    *,
    lambda_recon: float | Tensor = 1.0,
    lambda_edge: float | Tensor = 0.2,
    lambda_smooth: float | Tensor = 0.1,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Masked L1 of the depth, L1 of its edge strength, and smoothness away from the target's edges.

    With m the mask of valid targets (finite and above 0), mₑ the mask of pixels whose 3 × 3 neighbours are
    all valid (beyond the image nothing is), g the Sobel derivatives, zero-padded and not normalised, and
    |g| = √(gₓ² + g_y² + 1e-6 m²),

        recon  = Σ m |pred − target| / Σ m
        edge   = Σ mₑ | |g(pred)| − |g(target)| | / Σ mₑ
        smooth = Σ mₑ (|gₓ(pred)| + |g_y(pred)|) exp(−|g(target)|) / Σ mₑ

    where an empty sum gives 0. The last is the edge-aware smoothness of Godard et al., "Unsupervised
    Monocular Depth Estimation with Left-Right Consistency", 2017, with the target's depth edges in place of
    image edges. A prediction where nothing was measured has no influence, be it NaN; a NaN elsewhere makes
    the loss NaN.

    Kernels compute value and gradient in one pass over the pixels, and the backward scales that gradient.
    Without a gradient to compute, none is. Computes in float32, under autocast too, or in float64 for a
    float64 prediction. Any strides are accepted. Results are the same bits on every run.

    Args:
        pred: [B, 1, H, W] or [B, H, W], metres; float32, bfloat16, float16 or float64.
        target: like `pred`, of any of these dtypes; takes no gradient.
        lambda_recon: weight of recon: at least 0 and finite, or a 0-d tensor on the device of `pred`, whose
            value is not looked at. A tensor may require a gradient.
        lambda_edge: weight of edge, likewise.
        lambda_smooth: weight of smooth, likewise.
        backend: one of `binaural.kernels.BACKENDS`; None takes the best available for the tensors.

    Returns:
        total []: the weighted sum of the terms; float32, or float64 for a float64 prediction.
        terms [3]: recon, edge and smooth, detached, of the same dtype and on the device.

    Raises:
        TypeError: an argument that is no tensor or number, or of a dtype that is not among those above.
        ValueError: shapes that differ or are of another form, mixed devices, a target that requires a
            gradient, a weight that is negative or not finite, an unknown backend or one that cannot run here.
    """
    check(pred, target)
    lambdas = {"lambda_recon": lambda_recon, "lambda_edge": lambda_edge, "lambda_smooth": lambda_smooth}
    lambdas = {name: to_python(weight) for name, weight in lambdas.items()}
    for name, weight in lambdas.items():
        if isinstance(weight, Tensor):
            check_weight_tensor(name, weight, pred.device)
        else:
            check_weight(name, weight)
    return _loss(pred, target, _stack(list(lambdas.values()), pred), backend)


def weighted_loss(
    pred: Tensor, target: Tensor, weights: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """`edge_aware_loss` with its three weights in one tensor [3] on the device, for weights that change.

    Raises:
        TypeError, ValueError: as `edge_aware_loss`; the values of the weights are not looked at.
    """
    check(pred, target)
    check_weights(weights, pred.device)
    return _loss(pred, target, weights, backend)


def _stack(weights: list[float | Tensor], pred: Tensor) -> Tensor:
    """The weights in one tensor [3] on the device of `pred`."""
    device, dtype = pred.device, _wide(pred.dtype)
    if device.type == "cpu" and not any(isinstance(weight, Tensor) for weight in weights):
        return torch.tensor(weights, dtype=dtype)
    # Filled on the device: copying numbers to a GPU would wait for it.
    return torch.stack(
        [
            weight.to(dtype)
            if isinstance(weight, Tensor)
            else torch.full((), weight, dtype=dtype, device=device)
            for weight in weights
        ]
    )


def _wide(dtype: torch.dtype) -> torch.dtype:
    """What is computed in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _loss(pred: Tensor, target: Tensor, weights: Tensor, backend: str | None) -> tuple[Tensor, Tensor]:
    name = choose("edge_aware_loss", backend, pred, WHY_NOT_COVERED)
    # Nothing to sum: the kernels need not know empty images.
    if name == "reference" or pred.numel() == 0:
        return reference(pred, target, weights)
    wide = _wide(pred.dtype)
    if target.dtype != pred.dtype:
        target = target.to(wide)
    if weights.dtype != wide:
        weights = weights.to(wide)
    if torch.is_grad_enabled() and (pred.requires_grad or weights.requires_grad):
        return _EdgeAwareLoss.apply(name, pred, target, weights)
    return _FORWARD[name](pred, target, weights, False)[:2]


class _EdgeAwareLoss(torch.autograd.Function):
    """Autograd around the opaque forward and backward operators of one backend.

    It is not marked `once_differentiable`: with that mark a second-order term can vanish silently, while
    the opaque backward operator, having no gradient formula, raises.
    """

    @staticmethod
    def forward(
        ctx: Any, backend: str, pred: Tensor, target: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        total, terms, coded, scales = _FORWARD[backend](pred, target, weights, ctx.needs_input_grad[1])
        ctx.mark_non_differentiable(terms)
        ctx.save_for_backward(pred, terms, coded, scales)
        ctx.backend = backend
        return total, terms

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        pred, terms, coded, scales = ctx.saved_tensors
        # `pred` gives dtype and shape; having a gradient itself, it also makes a second order raise. So it
        # does for the weights: multiplied in sight of autograd, the terms would pass for constants.
        grad_pred = (
            _BACKWARD[ctx.backend](grad_total, coded, scales, pred) if ctx.needs_input_grad[1] else None
        )
        grad_weights = _weights_backward(grad_total, terms, pred) if ctx.needs_input_grad[3] else None
        return None, grad_pred, None, grad_weights


def _fake_forward(
    pred: Tensor, target: Tensor, weights: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    wide = _wide(pred.dtype)
    coded = (pred.shape[0], pred.shape[-2], pred.shape[-1]) if with_gradient else (0,)
    return (
        pred.new_empty((), dtype=wide),
        pred.new_empty(3, dtype=wide),
        pred.new_empty(coded, dtype=wide),
        pred.new_empty(2, dtype=wide),
    )


def _fake_backward(grad_total: Tensor, coded: Tensor, scales: Tensor, pred: Tensor) -> Tensor:
    return torch.empty_like(pred, memory_format=torch.contiguous_format)


def why_cuda_does_not_cover(pred: Tensor) -> str | None:
    """Why the CUDA kernels leave this call to the next backend, in one line; None where they do not."""
    if pred.dtype == torch.float64:
        return "its kernels compute in float32, and these tensors are float64"
    return None


# How one pass suffices although the divisors Σ m and Σ mₑ are only known at its end: `coded` [B, H, W] is the
# gradient of Σ mₑ (λ_edge · edge + λ_smooth · smooth) as float32 (float64 for float64), with the two lowest
# bits of the mantissa replaced by the sign of m (pred − target): 0, 1, or 3 for −1, which is the gradient of
# Σ m |pred − target|. This costs the gradient 4e-7 of its value. `scales` [2] = (λ_recon / Σ m, 1 / Σ mₑ)
# stays on the device, and the backward combines the two with it, out of place. Without a gradient `coded` is
# empty. `weights` [3] and all results but grad_pred are float32, or float64 for a float64 prediction;
# `target` has the dtype of `pred` or that one. The same two schemas stand in csrc/schema.cpp.
FORWARD_SCHEMA = (
    "(Tensor pred, Tensor target, Tensor weights, bool with_gradient)"
    " -> (Tensor total, Tensor terms, Tensor coded, Tensor scales)"
)
BACKWARD_SCHEMA = "(Tensor grad_total, Tensor coded, Tensor scales, Tensor pred) -> Tensor grad_pred"

_FORWARD: dict[str, Any] = {}
_BACKWARD: dict[str, Any] = {}
# For each backend, why it leaves a call with this prediction to the next one, or None.
WHY_NOT_COVERED: dict[str, Any] = {"cpp": lambda pred: None, "cuda": why_cuda_does_not_cover}

if extension.WHY_NOT_LOADED is None:
    _FORWARD["cpp"] = _FORWARD["cuda"] = complete_operator("edge_aware_loss_forward", _fake_forward)
    _BACKWARD["cpp"] = _BACKWARD["cuda"] = complete_operator("edge_aware_loss_backward", _fake_backward)

_weights_backward = define_operator(
    "edge_aware_loss_weights_backward",
    "(Tensor grad_total, Tensor terms, Tensor pred) -> Tensor grad_weights",
    lambda grad_total, terms, pred: grad_total * terms,
    lambda grad_total, terms, pred: torch.empty_like(terms),
)

_FORWARD["triton"] = define_operator(
    "edge_aware_loss_forward_triton", FORWARD_SCHEMA, triton_entry.forward, _fake_forward
)
_BACKWARD["triton"] = define_operator(
    "edge_aware_loss_backward_triton", BACKWARD_SCHEMA, triton_entry.backward, _fake_backward
)
WHY_NOT_COVERED["triton"] = triton_entry.why_not_covered
