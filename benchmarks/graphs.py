"""Calls captured as CUDA graphs: a replay takes the time on the device, without Python and launches."""

import time
from collections.abc import Callable
from typing import Protocol

import torch

from benchmarks.measure import Repeated

# Minimum duration of a measurement, so that synchronisation is a small part of it.
LEAST_SECONDS = 2e-3


class Differentiated(Protocol):
    """A computation with a forward and a backward, called in turn."""

    def forward(self) -> object: ...

    def backward(self) -> object: ...


def capture(run: Differentiated) -> tuple[Repeated, Repeated]:
    """Forward and backward as graphs. Both must have run before, so that nothing is compiled or tuned."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # the first call on a stream allocates
        run.forward()
        run.backward()
    torch.cuda.current_stream().wait_stream(side)
    forward, backward = torch.cuda.CUDAGraph(), torch.cuda.CUDAGraph()
    with torch.cuda.graph(forward):
        run.forward()
    with torch.cuda.graph(backward, pool=forward.pool()):
        run.backward()
    # Replayed in this order: the backward needs the results of the forward.
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
