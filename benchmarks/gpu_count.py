"""Count what Triton kernels move and multiply: their own loads, stores and products, as interpreted.

    TRITON_INTERPRET=1 python -m benchmarks.gpu_count cross_attention

prints JSON. One program of each launch is run, and its counts are multiplied by the grid.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count bytes loaded and stored by unmasked elements, and operations of products, while inside.

    Reading the same element twice in one load counts twice: kernels that do it would show.
    """
    from triton.runtime.interpreter import interpreter_builder as builder

    counts = {"read": 0, "written": 0, "operations": 0}
    load, store, dot = builder.create_masked_load, builder.create_masked_store, builder.create_dot

    def size(pointers: Any, mask: Any) -> int:
        element = pointers.dtype.scalar.element_ty.primitive_bitwidth // 8
        return int(np.broadcast_to(mask.data, pointers.data.shape).sum()) * element

    def counted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        counts["read"] += size(pointers, mask)
        return load(pointers, mask, *rest)

    def counted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        counts["written"] += size(pointers, mask)
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
    with counted() as counts:
        launch.kernel[(1,)](*launch.arguments, **launch.constants, **launch.config)
    return {name: value * programs for name, value in counts.items()}


def main() -> None:
    from benchmarks.gpu_report import OPERATIONS

    rows = {}
    for entry in OPERATIONS[sys.argv[1]]():
        # Every problem costs the same: one of them is held in memory, and the grid says how many there are.
        rows[entry.label] = [count(launch) for launch in entry.launches(torch.device("cpu"))]
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
