"""Ctrl-C, SIGTERM and SIGHUP stop the training loop between two steps."""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import TypeVar

from binaural.training.processes import Processes

Item = TypeVar("Item")

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that ask a run to stop."""


class StopRequested(Exception):
    """A signal asked the run to stop; the message is the name of the signal."""


class Interruption:
    """Context manager in which SIGINT, SIGTERM and SIGHUP take effect after a step; a second Ctrl-C at once.

    Args:
        processes: the ranks that must stop together; None for one process.
    """

    def __init__(self, processes: Processes | None = None) -> None:
        self._processes = processes
        self._requested: str | None = None

    def __enter__(self) -> "Interruption":
        # SIGHUP is ignored under nohup, and stays so.
        ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        stops = [number for number in STOPS if not (number == signal.SIGHUP and ignored)]
        self._previous = {number: signal.signal(number, self._handle) for number in stops}
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
        """The items, until a signal asks to stop.

        Args:
            items: the same number on every rank.
            agree_every: items between two exchanges with the other ranks; with 0 they do not exchange, and
                several ranks do not stop here.

        Raises:
            StopRequested: after the item during which a signal came, on any rank.
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
