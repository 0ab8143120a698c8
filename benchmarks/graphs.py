"""Calls captured as CUDA graphs: replayed, they take the device's time, without Python and launches."""

import time
from collections.abc import Callable
from typing import Protocol

import torch

from benchmarks.measure import Repeated

# That a measurement lasts at least, beside which waiting for the device is short.
LEAST_SECONDS = 2e-3


class Differentiated(Protocol):
    """A computation whose forward and backward are called in turn."""

    def forward(self) -> object: ...

    def backward(self) -> object: ...


def capture(run: Differentiated) -> tuple[Repeated, Repeated]:
    """Forward and backward as graphs. Both have run before, so that nothing is compiled or tuned any more."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # what is made for a stream at the first call on it is made now
        run.forward()
        run.backward()
    torch.cuda.current_stream().wait_stream(side)
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(forward):
        run.forward()
    with torch.cuda.graph(backward, pool=forward.pool()):
        run.backward()
    # Replayed in this order: the backward reads what the forward wrote.
    return _long_enough(forward.replay), _long_enough(backward.replay)


def capture_one(function: Callable[[], object]) -> Repeated:
    """A single function as a graph."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        function()
    return _long_enough(graph.replay)


def _long_enough(replay: Callable[[], object]) -> Repeated:
    replay()
    torch.cuda.synchronize()
    start = time.perf_counter()
    replay()
    torch.cuda.synchronize()
    return Repeated(replay, 1 + int(LEAST_SECONDS / (time.perf_counter() - start)))
