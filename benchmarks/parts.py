"""Measure where the time of a training step goes: forward and backward of each part of the network."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import binaural.models.attention
from benchmarks.step_networks import Step
from binaural.models.attention import BinauralCrossAttention
from binaural.models.blocks import Decoder, Encoder, Fusion
from binaural.models.view_transform import ViewTransforms

PARTS = (
    "encoders",
    "attention core",
    "attention projections",
    "fusion",
    "view transform",
    "decoder",
    "loss",
    "optimiser",
    "other",
)
_PART_OF: dict[type[nn.Module], str] = {
    Encoder: "encoders",
    BinauralCrossAttention: "attention projections",
    Fusion: "fusion",
    ViewTransforms: "view transform",
    Decoder: "decoder",
}


class Clock:
    """Seconds by part; time counts for the innermost part that is running."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._running = ["other"]
        self._since = _now()

    def enter(self, part: str) -> None:
        self._add_elapsed()
        self._running.append(part)

    def leave(self) -> None:
        self._add_elapsed()
        self._running.pop()

    def _add_elapsed(self) -> None:
        now = _now()
        self.seconds[self._running[-1]] += now - self._since
        self._since = now


def measure_parts(step: Step, steps: int) -> dict[str, float]:
    """Median seconds of each part over some steps; the backward of an operation counts for its part.

    On a GPU the clock synchronises with the device between parts and between operations of the backward.
    """
    taken = [_measure(step) for _ in range(steps)]
    return {part: sorted(seconds[part] for seconds in taken)[steps // 2] for part in PARTS}


def _measure(step: Step) -> dict[str, float]:
    clock = Clock()
    inputs: dict[nn.Module, set[Any]] = {}

    def enter(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        inputs[module] = {x.grad_fn for x in _tensors(arguments)}
        clock.enter(_part_of(module))

    def leave(module: nn.Module, _: Any, result: Any) -> None:
        clock.leave()
        _watch(result, inputs[module], _part_of(module), clock)

    modules = list(_find_parts(step.network))
    hooks = [module.register_forward_pre_hook(enter) for module in modules]
    hooks += [module.register_forward_hook(leave) for module in modules]
    with ExitStack() as patches:
        for name in ("cross_attention", "packed_cross_attention"):
            core = _timed(getattr(binaural.models.attention, name), "attention core", clock)
            patches.enter_context(mock.patch.object(binaural.models.attention, name, core))
        pred = step.predict()
    total = _timed(step.compute_loss, "loss", clock)(pred)
    total.backward()
    clock.enter("optimiser")
    step.update()
    clock.leave()
    for hook in hooks:
        hook.remove()
    return clock.seconds


def _find_parts(module: nn.Module) -> Iterator[nn.Module]:
    """The modules that are parts; their submodules belong to them."""
    if isinstance(module, tuple(_PART_OF)):
        yield module
        return
    for child in module.children():
        yield from _find_parts(child)


def _part_of(module: nn.Module) -> str:
    return next(part for kind, part in _PART_OF.items() if isinstance(module, kind))


def _timed(function: Callable[..., Any], part: str, clock: Clock) -> Callable[..., Any]:
    """`function` with its forward and backward counted as `part`."""

    def run(*arguments: Any, **named: Any) -> Any:
        before = {x.grad_fn for x in _tensors((*arguments, *named.values()))}
        clock.enter(part)
        result = function(*arguments, **named)
        clock.leave()
        _watch(result, before, part, clock)
        return result

    return run


def _watch(result: Any, before: set[Any], part: str, clock: Clock) -> None:
    """Count the backward of all operations between `before` and `result` as `part`, except those that count
    for another part already."""
    found: set[Any] = {x.grad_fn for x in _tensors((result,))} - before - {None}
    waiting: list[Any] = list(found)
    while waiting:
        node = waiting.pop()
        if node.metadata.get("part") is None and type(node).__name__ != "AccumulateGrad":
            node.metadata["part"] = part
            node.register_prehook(lambda _: clock.enter(part))
            node.register_hook(lambda *_: clock.leave())
        for following, _ in node.next_functions:
            if following is not None and following not in found and following not in before:
                found.add(following)
                waiting.append(following)


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    found: list[Tensor] = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value)
        elif isinstance(value, list | tuple):
            found += _tensors(value)
    return found


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
