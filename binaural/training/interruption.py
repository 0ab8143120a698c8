"""Ctrl-C and SIGTERM as a request that the training loop grants between two steps."""

import signal
from collections.abc import Iterable, Iterator
from types import FrameType, TracebackType
from typing import TypeVar

Item = TypeVar("Item")


class StopRequested(Exception):
    """Somebody asked the run to stop; its text is the signal's name."""


class Interruption:
    """While entered, SIGINT and SIGTERM wait for the end of a step; a second Ctrl-C stops at once."""

    def __init__(self) -> None:
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

    def watch(self, items: Iterable[Item]) -> Iterator[Item]:
        """The items, as long as nobody asks to stop.

        Raises:
            StopRequested: after the work on an item during which a signal came.
        """
        for item in items:
            yield item
            if self._requested is not None:
                raise StopRequested(self._requested)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._requested = signal.Signals(number).name
