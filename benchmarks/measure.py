"""Interleaved timing: functions take turns, and ratios are taken within a turn."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Spread:
    """A median and the 20th and 80th percentiles around it."""

    p20: float
    p50: float
    p80: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(*(float(v) for v in np.percentile(values, (20, 50, 80))))

    def __format__(self, spec: str) -> str:
        return f"{self.p50:{spec}} ({self.p20:{spec}}-{self.p80:{spec}})"


@dataclass(frozen=True)
class Repeated:
    """A function that is too short to be timed alone, called several times per measurement."""

    function: Callable[[], object]
    times: int

    def __call__(self) -> None:
        for _ in range(self.times):
            self.function()


def interleave(
    functions: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 2
) -> dict[str, list[float]]:
    """Seconds of each function in each round; in a round every function is called once.

    Other load on the machine affects all functions of a round alike, so ratios within a round vary less than
    times. On a GPU the device is synchronised before and after each call.
    """
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for number in range(-warm_up, rounds):
        for name, function in functions.items():
            _wait()
            start = time.perf_counter()
            function()
            _wait()
            taken = time.perf_counter() - start
            if number >= 0:
                seconds[name].append(taken / (function.times if isinstance(function, Repeated) else 1))
    return seconds


def ratio(slower: list[float], faster: list[float]) -> Spread:
    """Times of the first function over those of the second, by round."""
    return Spread.of([a / b for a, b in zip(slower, faster, strict=True)])


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
