"""The losses of recent steps, kept on the device and copied to the host once per logging interval."""

import math

import torch
from torch import Tensor


class StepLosses:
    """Collects loss and terms of each step; `take` is the only synchronisation with the device in the loop.

    Args:
        terms: names of the terms of the loss.
        device: device of the losses.
        interval: maximum number of steps between two calls of `take`.
    """

    def __init__(self, terms: tuple[str, ...], device: torch.device, interval: int) -> None:
        self._names = ("loss", *terms)
        self._losses = torch.zeros(interval, len(self._names), device=device)
        self._count = 0

    def add(self, total: Tensor, terms: Tensor) -> None:
        """Store the loss [] and its terms [K] of a step, without synchronisation."""
        self._losses[self._count, 0] = total.detach()
        self._losses[self._count, 1:] = terms
        self._count += 1

    def take(self) -> tuple[dict[str, float], int | None]:
        """Means since the last call, and how many steps ago the first non-finite loss occurred, or None."""
        losses = self._losses[: self._count].cpu().double()
        self._count = 0
        means = losses.mean(0).tolist() if len(losses) else [math.nan] * len(self._names)
        bad = (~losses.isfinite().all(1)).nonzero().flatten().tolist()
        named = dict(zip(self._names, means, strict=True))
        return named, (len(losses) - bad[0] if bad else None)
