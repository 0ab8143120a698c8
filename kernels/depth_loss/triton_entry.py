"""The operators of the Triton kernels: what they allocate and launch. The first call imports Triton."""

import torch
from torch import Tensor

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
    from kernels.depth_loss import triton_kernels

    images, height, width = pred.shape[0], pred.shape[-2], pred.shape[-1]
    total, terms, scales = (pred.new_empty(s, dtype=torch.float32) for s in ((), (3,), (2,)))
    coded = pred.new_empty((images, height, width) if with_gradient else (0,), dtype=torch.float32)
    columns = min(COLUMNS, max(32, 1 << (width - 1).bit_length()))
    programs = images * -(-height // ROWS) * -(-width // columns)
    partial = pred.new_empty((5, programs), dtype=torch.float32)
    triton_kernels.sweep[(programs,)](
        pred, _strides(pred), target, _strides(target), weights, coded if with_gradient else None, partial,
        height, width, ROWS=ROWS, COLUMNS=columns, num_warps=columns // 32,
    )  # fmt: skip
    triton_kernels.finish[(1,)](partial, weights, total, terms, scales, programs, BLOCK=BLOCK)
    return total, terms, coded, scales


def backward(grad_total: Tensor, coded: Tensor, scales: Tensor, pred: Tensor) -> Tensor:
    from kernels.depth_loss import triton_kernels

    grad_pred = torch.empty_like(pred, memory_format=torch.contiguous_format)
    count = pred.numel()
    triton_kernels.decode[(-(-count // BLOCK),)](grad_total, coded, scales, grad_pred, count, BLOCK=BLOCK)
    return grad_pred


def _strides(images: Tensor) -> tuple[int, int, int]:
    """Of [B, H, W]."""
    return images.stride(0), images.stride(-2), images.stride(-1)
