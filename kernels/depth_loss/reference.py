"""The definition of the operation, in plain PyTorch: every kernel is tested against it."""

import torch
import torch.nn.functional as F
from torch import Tensor

from binaural.kernels.dispatch.autocast import without_autocast

EPSILON = 1e-6  # m²; keeps the gradient of |g| finite where the image is flat


def reference(pred: Tensor, target: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Edge-aware loss of `binaural.kernels.edge_aware_loss` on [B, H, W] or [B, 1, H, W] images, weights [3].

    Computes in float32, or in float64 for a float64 prediction. Returns total [] and terms [3].
    """
    wide = torch.promote_types(pred.dtype, torch.float32)
    with without_autocast(pred):
        height, width = pred.shape[-2:]
        pred, target = (image.reshape(image.shape[0], height, width).to(wide) for image in (pred, target))
        valid = target.isfinite() & (target > 0)
        # Replaced before any arithmetic: a NaN times a zero mask would still be NaN, in the gradient too.
        pred, target = torch.where(valid, pred, 0), torch.where(valid, target, 0)
        inner = _erode(valid)
        px, py = _sobel(pred)
        tx, ty = _sobel(target)
        t_magnitude = (tx**2 + ty**2 + EPSILON).sqrt()
        edge = ((px**2 + py**2 + EPSILON).sqrt() - t_magnitude).abs()
        smooth = (px.abs() + py.abs()) * torch.exp(-t_magnitude)
        terms = torch.stack(
            [
                _masked_mean((pred - target).abs(), valid),
                _masked_mean(edge, inner),
                _masked_mean(smooth, inner),
            ]
        )
        total = (weights.to(wide) * terms).sum()
    return total, terms.detach()


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask; 0 where it is empty. A value outside the mask never counts, NaN or not."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp(min=1)


def _erode(valid: Tensor) -> Tensor:
    """Pixels whose nine neighbours [B, H, W] are all valid; beyond the image nothing is."""
    missing = F.pad((~valid).float(), (1, 1, 1, 1), value=1.0)
    return F.max_pool2d(missing[:, None], 3, stride=1)[:, 0] == 0


def _sobel(image: Tensor) -> tuple[Tensor, Tensor]:
    """Horizontal and vertical Sobel 3 × 3 derivatives of [B, H, W], zero beyond the image, as
    cross-correlation with [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]] and its transpose."""
    x = F.pad(image, (1, 1, 1, 1))
    smooth_rows = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:]
    smooth_columns = x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    return smooth_rows[:, :, 2:] - smooth_rows[:, :, :-2], smooth_columns[:, 2:] - smooth_columns[:, :-2]
