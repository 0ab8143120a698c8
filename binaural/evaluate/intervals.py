"""Confidence intervals of means over images."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import bootstrap

_BATCH = 100  # resamples held in memory at a time


@dataclass(frozen=True)
class Bootstrap:
    """Percentile bootstrap over images (Efron, "Bootstrap Methods", Annals of Statistics, 1979).

    Images count as independent. Neighbouring recordings of one place are not: intervals on BatVision are
    narrower than those over new places would be.

    Attributes:
        resamples: number of resamples.
        confidence: share of the resampled means inside the interval.
        seed: of the random resampling.

    Raises:
        ValueError: not a positive number of resamples, or a confidence outside 0 to 1.
    """

    resamples: int = 2000
    confidence: float = 0.95
    seed: int = 0

    def __post_init__(self) -> None:
        if self.resamples < 1:
            raise ValueError(f"resamples must be at least 1, got {self.resamples}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence must lie between 0 and 1, got {self.confidence}")

    def means(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Mean, lower and upper bound over the images, [K] each, of values [N, K].

        NaN where there is none: the interval of a single image, the mean of no image, or values that are not
        finite.
        """
        unknown = np.full(values.shape[1], np.nan)
        if len(values) == 0:
            return unknown, unknown, unknown
        mean = values.mean(0)
        finite = np.isfinite(mean)
        low, high = unknown.copy(), unknown.copy()
        if len(values) > 1 and finite.any():
            interval = bootstrap(
                (values[:, finite],),
                np.mean,
                n_resamples=self.resamples,
                batch=_BATCH,
                confidence_level=self.confidence,
                method="percentile",
                rng=np.random.default_rng(self.seed),
            ).confidence_interval
            low[finite], high[finite] = interval.low, interval.high
        return mean, low, high

    def named_means(self, names: tuple[str, ...], values: NDArray[np.float64]) -> dict[str, dict[str, Any]]:
        """Mean, low and high of each named column of values [N, K], as JSON values; None for NaN."""
        columns = zip(names, *self.means(values), strict=True)
        return {
            name: {"mean": _or_none(mean), "low": _or_none(low), "high": _or_none(high)}
            for name, mean, low, high in columns
        }


def _or_none(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None
