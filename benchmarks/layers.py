"""The fused layers at the sizes of a training step, against PyTorch's operators."""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import Case
from binaural.kernels import use_backend
from binaural.kernels.dispatch.backends import WHY_UNAVAILABLE
from binaural.kernels.layers import add_mirrored, batch_norm_relu, conv3x3, upsample_concat
from binaural.kernels.layers.maps import DTYPES

Layer = Callable[[], Sequence[Tensor]]

# Channels, height and width of maps of levels 1 and 3, with base 32 and a 128 x 128 input.
MAPS = ((32, 128, 128), (128, 32, 32))
BATCH = 8  # both ears of 4 samples


def batch_norm_relu_cases(device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Case]:
    """In training, with and without the pooled map."""
    for channels, height, width in MAPS:
        x = _map(BATCH, channels, height, width, dtype, device)
        numbers = [torch.rand(channels, device=device) for _ in range(4)]
        for leaf in numbers[:2]:
            leaf.requires_grad_()
        image = x.numel() * x.element_size()
        for pool in (False, True):
            call = partial(_norm, x, numbers, pool)
            # Forward reads x twice and writes y; backward reads x and dy twice and writes dx.
            share = image * (0.25 if pool else 0)
            yield from _cases(
                "batch_norm_relu",
                f"{BATCH} x {channels} x {height} x {width}" + (", pooled" if pool else ""),
                [x, *numbers[:2]],
                call,
                (3.0 * image + share, 5.0 * image + 2 * share),
                compiled,
            )


def _norm(x: Tensor, numbers: Sequence[Tensor], pool: bool) -> Sequence[Tensor]:
    y, pooled = batch_norm_relu(x, *numbers, training=True, pool=pool)
    return [y] if pooled is None else [y, pooled]


def upsample_concat_cases(device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Case]:
    """With a skip connection, and without."""
    for channels, height, width in MAPS:
        below = _map(BATCH // 2, 2 * channels, height // 2, width // 2, dtype, device)
        for kept in (channels, 0):
            skip = _map(BATCH // 2, kept, height, width, dtype, device)
            size = below.numel() * below.element_size()
            joined = (BATCH // 2) * (kept + 2 * channels) * height * width * below.element_size()
            moved = float(size + joined + skip.numel() * skip.element_size())
            yield from _cases(
                "upsample_concat",
                f"{BATCH // 2} x {kept} + {2 * channels} x {height} x {width}",
                [below, *([skip] if kept else [])],
                partial(_listed, upsample_concat, skip, below),
                (moved, moved),
                compiled,
            )


def add_mirrored_cases(device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Case]:
    for channels, height, width in MAPS:
        both = _map(BATCH, channels, height, width, dtype, device)
        moved = 1.5 * both.numel() * both.element_size()
        yield from _cases(
            "add_mirrored",
            f"{BATCH} x {channels} x {height} x {width}",
            [both],
            partial(_listed, add_mirrored, both),
            (moved, moved),
            compiled,
        )


def conv3x3_cases(device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Case]:
    """With the kernel for the gradient of the weights, also on processors where PyTorch's is as fast."""
    for channels, height, width in MAPS:
        x = _map(BATCH, channels, height, width, dtype, device)
        weight = _map(channels, channels, 3, 3, dtype, device)
        flops = 2.0 * 9 * channels * x.numel()
        image, weights = (t.numel() * t.element_size() for t in (x, weight))
        yield from _cases(
            "conv3x3",
            f"{BATCH} x {channels} x {height} x {width}",
            [x, weight],
            partial(_convolve, x, weight),
            (2.0 * image + weights, 3.0 * image + 2 * weights),
            compiled,
            (flops, 2 * flops),
            partial(_listed, F.conv2d, x, weight, padding=1),
        )


def _listed(function: Callable[..., Tensor], *arguments: Any, **named: Any) -> Sequence[Tensor]:
    """The output of a function of one output, as a case wants it."""
    return [function(*arguments, **named)]


def _convolve(x: Tensor, weight: Tensor) -> Sequence[Tensor]:
    with mock.patch.object(sys.modules[conv3x3.__module__], "PYTORCH_IS_SLOW", True):
        return [conv3x3(x, weight)]


def _map(batch: int, channels: int, height: int, width: int, dtype: torch.dtype, device: str) -> Tensor:
    values = torch.randn(batch, channels, height, width, device=device).to(dtype)
    return values.to(memory_format=torch.channels_last).requires_grad_(channels > 0)


def _cases(
    operation: str,
    size: str,
    leaves: Sequence[Tensor],
    layer: Layer,
    traffic: tuple[float, float],
    compiled: bool,
    flops: tuple[float, float] | None = None,
    plain: Layer | None = None,
) -> Iterator[Case]:
    """One case, or none where the layer has no kernels for the device and dtype of the leaves.

    `plain` is the layer in PyTorch's operators, by default `layer` on the backend "reference".
    """
    first = leaves[0]
    if not first.is_cpu or first.dtype not in DTYPES[operation]:
        return
    plain = plain or layer
    implementations: dict[str, Layer] = {}
    if WHY_UNAVAILABLE["cpp", operation] is None:
        implementations["cpp"] = partial(_with_backend, "cpp", layer)
    implementations["PyTorch"] = partial(_with_backend, "reference", plain)
    if compiled:
        compiled_layer = torch.compile(plain, dynamic=False)
        implementations["compiled PyTorch"] = partial(_with_backend, "reference", compiled_layer)
    grads = [torch.randn_like(output) for output in implementations["PyTorch"]()]
    yield Case(operation, size, leaves, grads, implementations, traffic, flops)


def _with_backend(backend: str, layer: Layer) -> Sequence[Tensor]:
    with use_backend(backend):
        return layer()


CASES: dict[str, Callable[[str, torch.dtype, bool], Iterator[Case]]] = {
    "add_mirrored": add_mirrored_cases,
    "batch_norm_relu": batch_norm_relu_cases,
    "conv3x3": conv3x3_cases,
    "upsample_concat": upsample_concat_cases,
}
