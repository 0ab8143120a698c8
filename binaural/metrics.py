"""Depth metrics: per image over the valid pixels, then averaged over the images.

With ground truth g and prediction p in metres over the pixels where g > threshold and g is finite:
RMSE = √mean((g − p)²), ABS_REL = mean(|g − p| / g), log10 = mean|log₁₀ g − log₁₀ p|, MAE = mean|g − p|,
δₖ = mean(max(g / p, p / g) < 1.25ᵏ) for k = 1, 2, 3.
Source: Eigen et al., "Depth Map Prediction from a Single Image using a Multi-Scale Deep Network", NIPS 2014,
with the choices of the BatVision benchmark (Brunetto et al., IROS 2023).
"""

import torch
from torch import Tensor

METRICS = ("rmse", "abs_rel", "log10", "mae", "delta1", "delta2", "delta3")

PREDICTION_FLOOR = 1e-3
"""Metres. Smaller predictions are raised to it in logarithms and ratios, so that every pixel counts."""


def depth_metrics(pred: Tensor, target: Tensor, *, threshold: float = 0.0) -> Tensor:
    """The metrics of each image, [B, 7] float64 in the order of `METRICS`; NaN without a valid pixel.

    A pixel is valid where `target` is finite and above `threshold`. A NaN prediction there makes the metrics
    of the image NaN (δ counts it as a miss).

    Args:
        pred: predicted depth in metres, [B, 1, H, W] or [B, H, W].
        target: true depth in metres, the same shape; at or below 0 or not finite means no measurement.
        threshold: metres, at least 0. BatVision's own is 0; others use 0.1 or 0.5.

    Raises:
        ValueError: the shapes differ or are not those, or the threshold is negative.
    """
    if pred.shape != target.shape or not (target.ndim == 3 or (target.ndim == 4 and target.shape[1] == 1)):
        raise ValueError(
            "pred and target must both be [B, 1, H, W] or [B, H, W], "
            f"got {list(pred.shape)} and {list(target.shape)}"
        )
    if not threshold >= 0:
        raise ValueError(f"threshold must be at least 0 m, got {threshold}")
    p, g = pred.detach().double().flatten(1), target.detach().double().flatten(1)  # [B, H·W]
    valid = torch.isfinite(g) & (g > threshold)
    g = torch.where(valid, g, 1.0)
    error = (g - p).abs()
    positive = p.clamp(min=PREDICTION_FLOOR)
    ratio = torch.maximum(g / positive, positive / g)

    def mean(values: Tensor) -> Tensor:
        return torch.where(valid, values, 0.0).sum(1) / valid.sum(1)

    return torch.stack(
        [
            mean(error**2).sqrt(),
            mean(error / g),
            mean((g.log10() - positive.log10()).abs()),
            mean(error),
            *(mean((ratio < 1.25**k).double()) for k in (1, 2, 3)),
        ],
        dim=1,
    )


class DepthMetrics:
    """The metrics of `depth_metrics`, averaged over all images of all batches.

    Images without a valid pixel are counted and left out. Nothing waits for the device until `compute`.

    Attributes:
        state: [9] float64 — the sums of the seven metrics, the images in them, the images left out. States
            add: `torch.distributed.all_reduce(metrics.state)` gives the metrics over all processes.
    """

    def __init__(self, *, threshold: float = 0.0, device: torch.device | str = "cpu") -> None:
        if not threshold >= 0:
            raise ValueError(f"threshold must be at least 0 m, got {threshold}")
        self.threshold = threshold
        self.state = torch.zeros(len(METRICS) + 2, dtype=torch.float64, device=device)

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add a batch; shapes and errors as in `depth_metrics`."""
        per_image = depth_metrics(pred, target, threshold=self.threshold)
        counted = ((target > self.threshold) & torch.isfinite(target)).flatten(1).any(1)  # [B]
        sums = torch.where(counted[:, None], per_image, 0.0).sum(0)
        batch = torch.cat([sums, counted.sum()[None], (~counted).sum()[None]])
        self.state += batch.to(self.state.device)

    def compute(self) -> dict[str, float]:
        """Each metric's mean over the images by its name in `METRICS`; NaN before any image counted."""
        means = self.state[: len(METRICS)] / self.state[-2]
        return dict(zip(METRICS, means.tolist(), strict=True))

    @property
    def images(self) -> int:
        """Images in the averages."""
        return int(self.state[-2])

    @property
    def unmeasured(self) -> int:
        """Images left out because no pixel was valid."""
        return int(self.state[-1])
