"""Count what Triton kernels move and multiply: their own loads, stores and products, as interpreted.

    TRITON_INTERPRET=1 python -m benchmarks.gpu_count cross_attention

prints JSON. Of a large grid, whose programs are all alike, one program is run, and its counts are multiplied.
"""

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

# Grids of as many programs are run whole: those at an image's border differ from the others.
SMALL_GRID = 32


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count bytes loaded and stored by unmasked elements, and operations of products, while inside.

    `read` counts an element as often as it is read; `first_read` counts those that a program has not read
    before.
    """
    from triton.runtime.interpreter import interpreter_builder as builder

    counts = {"read": 0, "first_read": 0, "written": 0, "operations": 0}
    load, store, dot = builder.create_masked_load, builder.create_masked_store, builder.create_dot
    seen: dict[object, set[int]] = {}

    def addresses(pointers: Any, mask: Any) -> tuple[np.ndarray, int]:
        size = pointers.dtype.scalar.element_ty.primitive_bitwidth // 8
        inside = np.broadcast_to(mask.data, pointers.data.shape).astype(bool)
        return pointers.data[inside], size

    def counted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        read, size = addresses(pointers, mask)
        before = seen.setdefault(tuple(builder.grid_idx), set())
        known = len(before)
        before.update(read.tolist())
        counts["read"] += read.size * size
        counts["first_read"] += (len(before) - known) * size
        return load(pointers, mask, *rest)

    def counted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        written, size = addresses(pointers, mask)
        counts["written"] += written.size * size
        return store(pointers, value, mask, *rest)

    def counted_dot(a: Any, b: Any, *rest: Any) -> Any:
        counts["operations"] += 2 * a.data.size * b.data.shape[-1]
        return dot(a, b, *rest)

    builder.create_masked_load, builder.create_masked_store = counted_load, counted_store
    builder.create_dot = counted_dot
    try:
        yield counts
    finally:
        del builder.create_masked_load, builder.create_masked_store, builder.create_dot


def count(launch: Any) -> dict[str, int]:
    """Bytes read and written and operations of one `Launch` of tensors on the CPU."""
    grid = launch.grid
    programs = (grid(launch.config) if callable(grid) else grid)[0]
    run = programs if programs <= SMALL_GRID else 1
    with counted() as counts:
        launch.kernel[(run,)](*launch.arguments, **launch.constants, **launch.config)
    return {name: value * programs // run for name, value in counts.items()}


def main() -> None:
    from benchmarks.gpu_calls import OPERATIONS

    rows = {}
    for entry in OPERATIONS[sys.argv[1]]():
        one = [count(launch) for launch in entry.launches(torch.device("cpu"), 1)]
        rows[entry.label] = [{name: math.ceil(value * entry.count) for name, value in c.items()} for c in one]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
