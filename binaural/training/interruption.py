"""Ctrl-C and SIGTERM as a request that the training loop grants between two steps."""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import TypeVar

from binaural.training.processes import Processes

Item = TypeVar("Item")


class StopRequested(Exception):
    """Somebody asked the run to stop; its text is the signal's name."""


class Interruption:
    """While entered, SIGINT and SIGTERM wait for the end of a step; a second Ctrl-C stops at once.

    Args:
        processes: that must stop together, one by default.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self._processes = processes
        self._requested: str | None = None

    def __enter__(self) -> "Interruption":
        self._previous = {s: signal.signal(s, self._handle) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def watch(self, items: Iterable[Item], agree_every: int = 0) -> Iterator[Item]:
        """The items, as long as nobody asks to stop.

        Args:
            items: as many in every process.
            agree_every: items between two questions to the other processes, if there are any; 0 never asks,
                and then several processes do not stop here.

        Raises:
            StopRequested: after the work on an item during which a signal came, here or elsewhere.
        """
        for number, item in enumerate(items, start=1):
            yield item
            if self._processes is None or self._processes.count == 1:
                stop = self._requested is not None
            elif agree_every and number % agree_every == 0:
                stop = self._processes.any(self._requested is not None)
            else:
                stop = False
            if stop:
                raise StopRequested(self._requested or "another process was asked to stop")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = signal.Signals(number).name
