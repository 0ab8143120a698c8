"""The calls that the reports of the GPU kernels look at: the model's own, and their launches in Triton."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

# (R, N = M, heads, d, dv): the time axis at the model's four levels, then the dense plane.
SHAPES = [
    (512, 128, 4, 32, 32),
    (256, 64, 4, 64, 64),
    (128, 32, 8, 64, 64),
    (64, 16, 8, 64, 64),
    (1, 16384, 1, 16, 128),
]
# Images of the depth loss, in float32.
IMAGES = (16, 256, 256)


@dataclass(frozen=True)
class Entry:
    """One call of an operation: `launches(device, count)` gives its `Launch`es for `count` problems."""

    label: str
    count: int  # of problems, which all cost the same
    least_bytes: int  # every operand read once, every result written once
    launches: Callable[[torch.device, int], list[Any]]
    # That PyTorch reads and writes afterwards, to sum the parts of the bias's gradient.
    summed_bytes: int = 0


def cross_attention_entries(dtype: torch.dtype = torch.bfloat16) -> Iterator[Entry]:
    """Forward and backward of cross-attention, shared similarity, with a lag bias on the time axis."""
    for r, n, heads, d, dv in SHAPES:
        label = f"({r}, {n}, {heads}, {d}" + (")" if d == dv else f", dv {dv})")
        elements = r * n * heads * 2
        reach = reach_of(n)
        statistics, bias = 4 * elements, 0 if reach is None else 4 * heads * (2 * reach + 1)
        q, v = elements * d * 2, elements * dv * 2
        forward = partial(_plan_forward, dtype=dtype, shape=(n, heads, d, dv))
        backward = partial(_plan_backward, dtype=dtype, shape=(n, heads, d, dv))
        shares = backward(torch.device("meta"), r)[1]
        summed = 0 if shares is None else shares.nbytes + shares[0].nbytes
        yield Entry(f"forward {label}", r, q + 2 * v + statistics + bias, forward)
        least = 2 * q + 4 * v + statistics + 2 * bias
        yield Entry(f"backward {label}", r, least, lambda *args, plan=backward: plan(*args)[0], summed)


def reach_of(n: int) -> int | None:
    """The longest lag that has a bias: all of them on the time axis, and on the dense plane there is none."""
    return n - 1 if n <= 128 else None


def _inputs(device: torch.device, count: int, dtype: torch.dtype, shape: tuple[int, ...]) -> list[Any]:
    """As the operator takes them, the values as wide as at a time: tensors, scale and longest lag."""
    from binaural.kernels.cross_attention.triton_entry import most_value_channels

    n, heads, d, dv = shape
    dv = min(dv, most_value_channels(dtype))
    qkv = [torch.zeros(count, n, heads, c, dtype=dtype, device=device) for c in (d, d, dv, dv)]
    reach = reach_of(n)
    bias = None if reach is None else torch.zeros(heads, 2 * reach + 1, device=device)
    return [*qkv, None, None, bias, d**-0.5, None]


def _plan_forward(device: torch.device, count: int, dtype: torch.dtype, shape: tuple[int, ...]) -> list[Any]:
    from binaural.kernels.cross_attention.triton_plan import plan_forward

    return plan_forward(*_inputs(device, count, dtype, shape))[0]


def _plan_backward(
    device: torch.device, count: int, dtype: torch.dtype, shape: tuple[int, ...]
) -> tuple[list[Any], Any]:
    from binaural.kernels.cross_attention.triton_plan import plan_backward, plan_forward

    inputs = _inputs(device, count, dtype, shape)
    outputs = plan_forward(*inputs)[1]
    gradients = [torch.zeros_like(o) for o in outputs[:2]]
    launches, _, shares = plan_backward(*[*gradients, *inputs[:7], *outputs, *inputs[7:]])
    return launches, shares


def edge_aware_loss_entries() -> Iterator[Entry]:
    """Value and gradient of the depth loss. The gradient's own pass over its undivided form is in it."""
    images, height, width = IMAGES

    def forward(device: torch.device, count: int) -> list[Any]:
        from binaural.kernels.depth_loss.triton_entry import plan_forward

        pred, target = (torch.zeros(count, height, width, device=device) for _ in range(2))
        return plan_forward(pred, target, torch.zeros(3, device=device), True)[0]

    def backward(device: torch.device, count: int) -> list[Any]:
        from binaural.kernels.depth_loss.triton_entry import plan_backward

        pred, numbers = torch.zeros(count, height, width, device=device), torch.zeros(3, device=device)
        return [plan_backward(numbers[0], pred, numbers[:2], pred)[0]]

    image = 4 * images * height * width
    label = f"({images}, 1, {height}, {width})"
    yield Entry(f"forward {label}", images, 3 * image, forward)
    yield Entry(f"backward {label}", images, 2 * image, backward)


# An operation whose kernels are written in Triton enters the report by standing here.
OPERATIONS: dict[str, Callable[[], Iterator[Entry]]] = {
    "cross_attention": cross_attention_entries,
    "edge_aware_loss": edge_aware_loss_entries,
}
