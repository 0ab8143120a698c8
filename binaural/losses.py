"""Training losses."""

import torch
from torch import Tensor, nn

from binaural.kernels.depth_loss import weighted_loss
from binaural.kernels.depth_loss.checks import check_weight
from binaural.kernels.dispatch.scalars import to_python

# Where in the training, as a fraction of its epochs, the weight of a term rises from 0 to its full value.
EDGE_RAMP = (0.1, 0.3)
SMOOTH_RAMP = (0.3, 0.4)


class DepthLoss(nn.Module):
    """Base class: `loss(output of a network in training mode, target, ...)` → total, terms.

    The total [] has a gradient; the terms, without their weights, are detached and on the device, so that
    reading the loss never waits for it.

    Attributes:
        terms: names of the terms, in order.
        weights: the number that each is multiplied by in the total.
    """

    terms: tuple[str, ...]
    weights: Tensor | tuple[float, ...]

    def weigh(self, *terms: Tensor) -> tuple[Tensor, Tensor]:
        """Total and terms [len(terms)] of the terms."""
        total = sum(
            (weight * term for weight, term in zip(self.weights, terms, strict=True)),
            torch.zeros_like(terms[0]),
        )
        return total, torch.stack([term.detach().float() for term in terms])


class MaskedL1Loss(DepthLoss):
    """Mean absolute error over the valid pixels, metres: BatVision's own loss."""

    terms = ("recon",)
    weights = (1.0,)

    def forward(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of `pred` [B, 1, H, W]; `target` likewise, ≤ 0 or not finite: nothing was measured."""
        valid = valid_pixels(target)
        return self.weigh(masked_mean((pred.float() - torch.where(valid, target, 0.0)).abs(), valid))


def valid_pixels(target: Tensor) -> Tensor:
    """Mask of the pixels with a measurement: finite and above 0."""
    return torch.isfinite(target) & (target > 0)


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of `values` where `mask`; 0 if the mask is empty. Masked values may be NaN or infinite."""
    return torch.where(mask, values, 0.0).sum() / mask.sum().clamp(min=1)


class BinauralAttentionLoss(DepthLoss):
    """Masked L1 of the depth, L1 of its edge strength, and smoothness away from the target's edges.

    The formulas are those of `binaural.kernels.edge_aware_loss`, which computes them.

    Args:
        lambda_recon: weight of the mean absolute depth error.
        lambda_edge: weight of the mean absolute error of the Sobel gradient's magnitude.
        lambda_smooth: weight of the edge-aware smoothness.
        backend: one of `binaural.kernels.BACKENDS`; None takes the best available for the tensors.

    Raises:
        TypeError: a weight that is not a number.
        ValueError: a weight that is negative or not finite.
    """

    terms = ("recon", "edge", "smooth")

    # [3], of the terms. A buffer, because a compiled loss reads it as data: a new value
    # recompiles nothing. Not saved: it follows from the arguments and, if adaptive, the epoch.
    weights: Tensor

    def __init__(
        self,
        lambda_recon: float = 1.0,
        lambda_edge: float = 0.2,
        lambda_smooth: float = 0.1,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        self.lambdas: dict[str, float] = {
            "lambda_recon": to_python(lambda_recon),
            "lambda_edge": to_python(lambda_edge),
            "lambda_smooth": to_python(lambda_smooth),
        }
        for name, weight in self.lambdas.items():
            check_weight(name, weight)
        self.backend = backend
        self.register_buffer(
            "weights", torch.tensor(list(self.lambdas.values()), dtype=torch.float32), persistent=False
        )

    def forward(self, pred: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The loss of a batch.

        Args:
            pred: [B, 1, H, W] or [B, H, W], metres.
            target: like `pred`; a value ≤ 0 or not finite means that nothing was measured there.

        Returns:
            total []: the weighted sum, with a gradient with respect to `pred`.
            terms [3]: recon, edge and smooth without their weights, detached, on the device.
        """
        return weighted_loss(pred, target, self.weights, backend=self.backend)

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={weight:g}" for name, weight in self.lambdas.items())


class AdaptiveBinauralAttentionLoss(BinauralAttentionLoss):
    """`BinauralAttentionLoss` as a curriculum: first depth, then edges, then smoothness.

    The edge weight rises linearly from 0 to `lambda_edge` between 10 % and 30 % of the epochs, and the
    smoothness weight from 0 to `lambda_smooth` between 30 % and 40 %. Call `set_epoch` before each epoch;
    before the first call the weights are those of the first epoch.
    """

    def __init__(
        self,
        lambda_recon: float = 1.0,
        lambda_edge: float = 0.2,
        lambda_smooth: float = 0.1,
        backend: str | None = None,
    ) -> None:
        super().__init__(lambda_recon, lambda_edge, lambda_smooth, backend)
        self.set_epoch(0, 1)

    def set_epoch(self, epoch: int, epochs: int) -> None:
        """Set the weights for one epoch.

        Args:
            epoch: the epoch that begins, counted from 0.
            epochs: how many there are in all.

        Raises:
            ValueError: `epoch` is not among the `epochs`.
        """
        if not 0 <= epoch < epochs:
            raise ValueError(f"epoch must be at least 0 and below epochs = {epochs}, got {epoch}")
        done = epoch / epochs
        self.weights.copy_(
            torch.tensor(
                [
                    self.lambdas["lambda_recon"],
                    self.lambdas["lambda_edge"] * _ramp(done, *EDGE_RAMP),
                    self.lambdas["lambda_smooth"] * _ramp(done, *SMOOTH_RAMP),
                ]
            )
        )


def _ramp(done: float, start: float, end: float) -> float:
    """0 before `start`, 1 after `end`, linear between."""
    return min(max((done - start) / (end - start), 0.0), 1.0)
