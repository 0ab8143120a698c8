"""The losses of recent steps, kept on the device and looked at once in a while."""

import math

import torch
from torch import Tensor


class StepLosses:
    """Collects loss and terms of each step; reading them is the loop's only wait for the device.

    Args:
        terms: names of the loss's terms.
        device: where the losses are.
        interval: most steps between two looks.
    """

    def __init__(self, terms: tuple[str, ...], device: torch.device, interval: int) -> None:
        self._names = ("loss", *terms)
        self._losses = torch.zeros(interval, len(self._names), device=device)
        self._count = 0

    def add(self, total: Tensor, terms: Tensor) -> None:
        """A step's loss [] and its terms [K], without waiting for them."""
        self._losses[self._count, 0] = total.detach()
        self._losses[self._count, 1:] = terms
        self._count += 1

    def take(self) -> tuple[dict[str, float], int | None]:
        """Means since the last look, and how many steps ago the first loss was not finite, or None."""
        losses = self._losses[: self._count].cpu().double()
        self._count = 0
        means = losses.mean(0).tolist() if len(losses) else [math.nan] * len(self._names)
        bad = (~losses.isfinite().all(1)).nonzero().flatten().tolist()
        named = dict(zip(self._names, means, strict=True))
        return named, (len(losses) - bad[0] if bad else None)
