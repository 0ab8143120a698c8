"""The operators of the Triton kernels: what they allocate and launch. The first call imports Triton."""

import torch
from torch import Tensor

from binaural.kernels.dispatch.launch import Launch, empty, launch_all

# A program's strip: short, so that a small batch still fills a GPU; the rows beyond its ends are read twice.
ROWS = 16
COLUMNS = 128
BLOCK = 1024


def why_not_covered(pred: Tensor) -> str | None:
    """Why the Triton kernels leave this call to the next backend, in one line; None where they do not."""
    if pred.dtype == torch.float64:
        return "its kernels compute in float32, and these tensors are float64"
    return None


def forward(
    pred: Tensor, target: Tensor, weights: Tensor, with_gradient: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    launches, outputs = plan_forward(pred, target, weights, with_gradient)
    launch_all(launches, pred.device)
    return outputs


def plan_forward(
    pred: Tensor, target: Tensor, weights: Tensor, with_gradient: bool
) -> tuple[list[Launch], tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The launches of a forward pass, and what they will have written."""
    from binaural.kernels.depth_loss import triton_kernels

    images, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    total, terms, scales = (empty(shape, pred, torch.float32) for shape in ((), (3,), (2,)))
    coded = empty((images, height, width) if with_gradient else (0,), pred, torch.float32)
    columns = min(COLUMNS, max(32, 1 << (width - 1).bit_length()))
    programs = images * -(-height // ROWS) * -(-width // columns)
    partial = empty((5, programs), pred, torch.float32)
    sweep = Launch(
        triton_kernels.sweep,
        (programs,),
        (
            pred, _strides(pred), target, _strides(target), weights, coded if with_gradient else None,
            partial, height, width,
        ),
        {"ROWS": ROWS, "COLUMNS": columns},
        {"num_warps": columns // 32},
    )  # fmt: skip
    finish = Launch(
        triton_kernels.finish,
        (1,),
        (partial, weights, total, terms, scales, programs),
        {"BLOCK": BLOCK},
        {},
    )
    return [sweep, finish], (total, terms, coded, scales)


def backward(grad_total: Tensor, coded: Tensor, scales: Tensor, pred: Tensor) -> Tensor:
    launch, grad_pred = plan_backward(grad_total, coded, scales, pred)
    launch_all([launch], pred.device)
    return grad_pred


def plan_backward(grad_total: Tensor, coded: Tensor, scales: Tensor, pred: Tensor) -> tuple[Launch, Tensor]:
    """The launch of a backward pass, and what it will have written."""
    from binaural.kernels.depth_loss import triton_kernels

    grad_pred = empty(pred.shape, pred)
    count = pred.numel()
    arguments = (grad_total, coded, scales, grad_pred, count)
    return Launch(triton_kernels.decode, (-(-count // BLOCK),), arguments, {"BLOCK": BLOCK}, {}), grad_pred


def _strides(images: Tensor) -> tuple[int, int, int]:
    """Of [B, H, W]."""
    return images.stride(0), images.stride(-2), images.stride(-1)
