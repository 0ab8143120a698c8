"""The public function, its autograd and its dispatch to the backends."""

import torch
from torch import Tensor

from kernels.backends import choose
from kernels.depth_loss.checks import check, check_weight, check_weights
from kernels.depth_loss.reference import reference


def edge_aware_loss(
    pred: Tensor,
    target: Tensor,
    *,
    lambda_recon: float | Tensor = 1.0,
    lambda_edge: float | Tensor = 0.2,
    lambda_smooth: float | Tensor = 0.1,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Masked L1 of the depth, L1 of its edge strength, and smoothness away from the target's edges."""
    lambdas = {"lambda_recon": lambda_recon, "lambda_edge": lambda_edge, "lambda_smooth": lambda_smooth}
    for name, weight in lambdas.items():
        if not isinstance(weight, Tensor):
            check_weight(name, weight)
    weights = torch.stack(
        [torch.as_tensor(w, dtype=torch.float32, device=pred.device) for w in lambdas.values()]
    )
    return weighted_loss(pred, target, weights, backend=backend)


def weighted_loss(
    pred: Tensor, target: Tensor, weights: Tensor, *, backend: str | None = None
) -> tuple[Tensor, Tensor]:
    """`edge_aware_loss` with its three weights in one tensor [3], which may change without recompiling."""
    check(pred, target)
    check_weights(weights)
    choose("edge_aware_loss", backend, pred.device, {})
    height, width = pred.shape[-2:]
    return reference(pred.reshape(-1, height, width), target.reshape(-1, height, width), weights)
