"""Blocks, warps and stages of the Triton kernels: the fixed choice, and what is tried beside it on a GPU.

All of the fixed choice fits into the shared memory of every GPU since sm_80, as the tests make sure. float32
gets small blocks: in its products on tensor cores, three operands take the place of one.
"""

from functools import cache
from typing import Any

import torch
import triton

from binaural.kernels.cross_attention.triton_blocks import (
    backward_blocks,
    backward_lag_bias,
    forward_blocks,
    sum_outputs,
)
from binaural.kernels.cross_attention.triton_whole import backward_whole, forward_whole

# Steps per ear, and steps times channels of q or v: the most that one program keeps on the chip together.
WHOLE_STEPS = 128
WHOLE_ELEMENTS, WHOLE_ELEMENTS_FLOAT32 = 8192, 1024

Config = dict[str, int]


def block(size: int) -> int:
    """The power of two, at least 16 for the tensor cores, that holds `size`."""
    return max(16, triton.next_power_of_2(size))


def fits_whole(n: int, m: int, d: int, dv: int, dtype: torch.dtype) -> bool:
    """Whether one program takes a whole problem, so that one similarity tile serves both directions."""
    elements = WHOLE_ELEMENTS_FLOAT32 if dtype == torch.float32 else WHOLE_ELEMENTS
    return max(n, m) <= WHOLE_STEPS and block(max(n, m)) * block(max(d, dv)) <= elements


def forward_columns(dtype: torch.dtype) -> int:
    """Right steps whose tiles a program that takes a whole problem has in its registers at a time."""
    return 32 if dtype == torch.float32 else 64


def backward_columns(dtype: torch.dtype) -> int:
    return 16 if dtype == torch.float32 else 32


def whole_config(blocks: Config, channels: int, dtype: torch.dtype) -> Config:
    """Warps among which several tiles of these blocks and of so many channels fit with few spills or none."""
    if dtype == torch.float32:
        return {"num_warps": 4, "num_stages": 1}
    warps = blocks["BLOCK_N"] * blocks["BLOCK_M"] // (256 if channels <= 64 else 128)
    return {"num_warps": max(1, min(8, warps)), "num_stages": 1}


def forward_config(dtype: torch.dtype) -> Config:
    if dtype == torch.float32:
        return {"BLOCK_A": 32, "BLOCK_B": 32, "num_warps": 4, "num_stages": 1}
    return {"BLOCK_A": 64, "BLOCK_B": 64, "num_warps": 4, "num_stages": 2}


def backward_config(channels: int, dtype: torch.dtype) -> Config:
    """`channels`: of all that the kernel keeps of one step."""
    if dtype == torch.float32:
        return {"BLOCK_A": 32 if channels <= 192 else 16, "BLOCK_B": 16, "num_warps": 4, "num_stages": 1}
    if channels > 288:
        return {"BLOCK_A": 32, "BLOCK_B": 32, "num_warps": 4, "num_stages": 2}
    return {"BLOCK_A": 64, "BLOCK_B": 32, "num_warps": 8, "num_stages": 2}


def lag_bias_config(dtype: torch.dtype) -> Config:
    if dtype == torch.float32:
        return {"BLOCK": 16, "num_warps": 8, "num_stages": 1}
    return {"BLOCK": 32, "num_warps": 4, "num_stages": 1}


def sum_outputs_config() -> Config:
    return {"BLOCK_A": 64, "num_warps": 4}


@cache
def tuned(kernel: Any) -> Any:
    """The kernel with the choice among several configurations that Triton times at the first call.

    One that does not fit on the GPU, as the large ones in float32, is left out by Triton.
    """
    blocks = [
        triton.Config({"BLOCK_A": a, "BLOCK_B": b}, num_warps=warps, num_stages=stages)
        for a, b, warps, stages in (
            (64, 64, 4, 2),
            (64, 32, 4, 2),
            (64, 32, 8, 2),
            (128, 64, 8, 2),
            (128, 32, 4, 3),
            (64, 32, 4, 3),
            (32, 32, 4, 2),
            (32, 16, 4, 1),
            (32, 16, 8, 1),
        )
    ]
    lag_bias = [triton.Config({"BLOCK": b}, num_warps=w, num_stages=1) for b in (16, 32) for w in (4, 8)]
    whole = [triton.Config({}, num_warps=warps, num_stages=1) for warps in (1, 2, 4, 8)]
    configs, key = {
        forward_whole: (whole, ["BLOCK_N", "BLOCK_M", "D", "DV"]),
        backward_whole: (whole, ["BLOCK_N", "BLOCK_M", "D", "DV"]),
        forward_blocks: (blocks, ["a_count", "b_count", "D", "DV"]),
        backward_blocks: (blocks, ["a_count", "b_count", "D", "DV"]),
        sum_outputs: ([triton.Config({"BLOCK_A": 64}, num_warps=w) for w in (2, 4)], ["DV"]),
        backward_lag_bias: (lag_bias, ["D", "DV"]),
    }[kernel]
    prune = {"early_config_prune": _with_work_for_all} if configs is whole else None
    return triton.autotune(configs=configs, key=key, prune_configs_by=prune, cache_results=True)(kernel)


def _with_work_for_all(configs: list[Any], _: Any, **constants: Any) -> list[Any]:
    """Those with 8 to 32 rows a warp: with more, registers spill by the thousand, and that takes minutes to
    compile."""
    rows = constants["BLOCK_N"]
    return [config for config in configs if rows // 32 <= config.num_warps <= rows // 8]
