"""Inputs for the tests of the depth loss, and the definition's answers to them."""

import torch
from torch import Tensor

from binaural.kernels.depth_loss import reference, weighted_loss

WEIGHTS = (0.7, 0.3, 0.2)


def make(shape: tuple[int, ...], invalid: float = 0.05, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Prediction and target in float64, of numbers that every dtype can represent.

    A share of `invalid` of the target's pixels has no measurement, written in all ways there are.
    """
    generator = torch.Generator().manual_seed(seed)
    pred = (torch.rand(shape, generator=generator) * 10).to(torch.bfloat16).to(torch.float16).double()
    target = (torch.rand(shape, generator=generator) * 10 + 0.1).to(torch.bfloat16).to(torch.float16).double()
    nothing = torch.tensor([0.0, -1.0, float("nan"), float("inf"), float("-inf")], dtype=torch.float64)
    which = nothing[torch.randint(len(nothing), shape, generator=generator)]
    return pred, torch.where(torch.rand(shape, generator=generator) < invalid, which, target)


def run(
    pred: Tensor, target: Tensor, backend: str, weights: tuple[float, float, float] = WEIGHTS
) -> tuple[Tensor, Tensor, Tensor]:
    """total, terms and the gradient of total."""
    pred = pred.detach().requires_grad_()
    total, terms = weighted_loss(pred, target, torch.tensor(weights, device=pred.device), backend=backend)
    return total.detach(), terms, torch.autograd.grad(total, pred)[0]


def defined(
    pred: Tensor, target: Tensor, weights: tuple[float, float, float] = WEIGHTS
) -> tuple[Tensor, Tensor, Tensor]:
    """The same by the definition, in float64."""
    pred = pred.detach().cpu().double().requires_grad_()
    # The weights as float32 has them.
    total, terms = reference(pred, target.cpu().double(), torch.tensor(weights).double())
    return total.detach(), terms, torch.autograd.grad(total, pred)[0]


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Norm of the difference over the norm of what was expected; 0 where both are 0."""
    difference = (result.cpu().double() - expected).norm()
    return (difference / expected.norm()).item() if difference > 0 else difference.item()
