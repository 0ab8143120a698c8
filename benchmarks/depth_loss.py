"""The edge-aware depth loss at the sizes of training batches."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import Case
from binaural.kernels.depth_loss import reference, weighted_loss
from binaural.kernels.depth_loss.reference import EPSILON
from binaural.kernels.dispatch.backends import BACKENDS, WHY_UNAVAILABLE

# B, H, W: larger than the caches, within them, and so small that the call itself takes most of the time.
SHAPES = ((64, 256, 256), (16, 256, 256), (16, 64, 64))
WEIGHTS = (1.0, 0.2, 0.1)
SOBEL = [[[[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]]]]


def cases(device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Case]:
    for batch, height, width in SHAPES:
        shape = (batch, 1, height, width)
        pred = (10 * torch.rand(shape, device=device)).to(dtype).requires_grad_()
        target = 10 * torch.rand(shape, device=device) + 0.1
        target = torch.where(torch.rand(shape, device=device) < 0.05, 0, target).to(dtype)
        weights = torch.tensor(WEIGHTS, device=device)
        forms: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
            backend: partial(weighted_loss, backend=backend)
            for backend in BACKENDS[1:]
            if WHY_UNAVAILABLE[backend, "edge_aware_loss"] is None and (backend == "cpp") == (device == "cpu")
        }
        forms["eager reference"] = reference
        if compiled:
            forms["compiled reference"] = torch.compile(reference, dynamic=False)
        forms["conv2d"] = partial(_conv2d_form, torch.tensor(SOBEL, device=device))
        call = partial(_total, pred, target, weights)
        copied = torch.empty_like(target)
        image = target.numel() * target.element_size()
        yield Case(
            operation="edge_aware_loss",
            size=f"{batch} x 1 x {height} x {width}",
            leaves=[pred],
            grads=[torch.ones((), device=device)],
            implementations={name: partial(call, form) for name, form in forms.items()},
            traffic=(2.0 * image, 1.0 * image),  # read two images; write the gradient
            streaming=partial(torch.add, pred.detach(), target, out=copied),
        )


def _total(
    pred: Tensor, target: Tensor, weights: Tensor, form: Callable[..., tuple[Tensor, Tensor]]
) -> Sequence[Tensor]:
    return form(pred, target, weights)[:1]


def _conv2d_form(along_x: Tensor, pred: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """The loss as usually written, with F.conv2d for every stencil."""
    pred, target = pred.float(), target.float()
    valid = target.isfinite() & (target > 0)
    pred, target = torch.where(valid, pred, 0), torch.where(valid, target, 0)
    inner = F.conv2d(valid.float(), pred.new_ones(1, 1, 3, 3), padding=1) > 8.5
    along_y = along_x.transpose(-1, -2)
    px, py = F.conv2d(pred, along_x, padding=1), F.conv2d(pred, along_y, padding=1)
    tx, ty = F.conv2d(target, along_x, padding=1), F.conv2d(target, along_y, padding=1)
    p_magnitude = (px.square() + py.square() + EPSILON).sqrt()
    t_magnitude = (tx.square() + ty.square() + EPSILON).sqrt()
    per_valid, per_inner = 1 / valid.sum().clamp(min=1), 1 / inner.sum().clamp(min=1)
    recon = ((pred - target).abs() * valid).sum() * per_valid
    edge = ((p_magnitude - t_magnitude).abs() * inner).sum() * per_inner
    smooth = ((px.abs() + py.abs()) * torch.exp(-t_magnitude) * inner).sum() * per_inner
    terms = torch.stack([recon, edge, smooth])
    return (weights * terms).sum(), terms.detach()
