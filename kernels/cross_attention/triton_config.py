"""Blocks, warps and stages of the Triton kernels of cross-attention: the fixed choice.

All of the fixed choice fits into the shared memory of every GPU since sm_80, as the tests make sure. float32
gets small blocks: in its products on tensor cores, three operands take the place of one.
"""

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from binaural.kernels.cross_attention.triton_near_lags import NEAR

# Steps per ear, and steps times channels of q or v: the most that one program keeps on the chip together.
WHOLE_STEPS = 128
WHOLE_ELEMENTS, WHOLE_ELEMENTS_FLOAT32 = 8192, 1024

Config = dict[str, int]


def block(size: int) -> int:
    """The power of two, at least 16 for the tensor cores, that holds `size`."""
    return max(16, triton.next_power_of_2(size))


def fits_whole(tensors: Sequence[Tensor | None]) -> bool:
    """Whether one program takes a whole problem of these tensors, so that one similarity tile serves both
    directions.

    Its offsets within a problem have 32 bits.
    """
    given = [t for t in tensors if t is not None]
    steps, channels = max(t.shape[1] for t in given), max(t.shape[3] for t in given)
    elements = WHOLE_ELEMENTS_FLOAT32 if given[0].dtype == torch.float32 else WHOLE_ELEMENTS
    fits = steps <= WHOLE_STEPS and block(steps) * block(channels) <= elements
    return fits and not needs_64_bits(*given)


def needs_64_bits(*tensors: Tensor | None) -> bool:
    """Whether an offset within one problem of any of these tensors [R, time, heads, channels] exceeds 32
    bits.

    Blocks reach at most 128 steps beyond the last step.
    """
    return any(t is not None and (t.shape[1] + 128) * t.stride(1) >= 2**31 - 2**20 for t in tensors)


def bucket(problems: int) -> int:
    """The power of two that holds `problems`: what the tuner knows of their number."""
    return triton.next_power_of_2(problems)


def safe_range(dtype: torch.dtype) -> float:
    """Largest |logit|, in units of log2, up to which powers of two are summed and rounded to `dtype`
    unshifted.

    Sums of 128 powers stay far below float32's largest number; rounded to float16, the smallest keep 12 bits.
    """
    return 12.0 if dtype == torch.float16 else 60.0


def whole_constants(n: int, m: int, config: Config, lag_bias: Tensor | None) -> dict[str, int]:
    """What the kernels for whole problems know when they are compiled."""
    return {
        "BLOCK_N": block(n),
        "WARPS": min(config["num_warps"], block(n) // 16),
        "FULL": n == block(n) and m % config["BLOCK_M"] == 0,
        "NEAR": lag_bias is not None and lag_bias.shape[1] // 2 <= NEAR,
    }


def forward_whole_config(n: int, m: int, d: int, dv: int, dtype: torch.dtype) -> Config:
    if dtype == torch.float32:
        return {"BLOCK_M": min(block(m), 32), "num_warps": 4, "num_stages": 1}
    return {"BLOCK_M": min(block(m), 32), "num_warps": max(1, min(2, block(n) // 16)), "num_stages": 1}


def backward_whole_config(
    n: int, m: int, d: int, dv: int, dtype: torch.dtype
) -> tuple[Config, Config | None]:
    """The choice, and the one in its place before sm_90, where operands of products lie in registers."""
    warps = max(1, min(4, block(n) // 16))
    narrow = {"BLOCK_M": 16, "num_warps": 4 if dtype == torch.float32 else warps, "num_stages": 1}
    if dtype == torch.float32 or (block(n) == 32 and max(d, dv) > 32):
        return narrow, None
    return {"BLOCK_M": min(block(m), 32), "num_warps": warps, "num_stages": 1}, narrow


def full_blocks(n: int, m: int) -> bool:
    """Whether both ears' steps fill every block of the kernels for long sequences, of at most 128 steps."""
    return n % 128 == m % 128 == 0


def forward_config(plain: bool, dtype: torch.dtype) -> tuple[Config, Config | None]:
    """The choice, and the one in its place where blocks have little shared memory; None if it fits there too.

    `plain`: there are neither masks nor a bias.
    """
    if dtype == torch.float32:
        return {"BLOCK_A": 32, "BLOCK_B": 32, "num_warps": 4, "num_stages": 1}, None
    small = {"BLOCK_A": 64, "BLOCK_B": 64, "num_warps": 4, "num_stages": 2}
    return (
        ({"BLOCK_A": 128, "BLOCK_B": 128, "num_warps": 8, "num_stages": 2}, small) if plain else (small, None)
    )


def backward_config(channels: int, plain: bool, dtype: torch.dtype) -> tuple[Config, Config | None]:
    """As `forward_config`. `channels`: of all that the kernel keeps of one step."""
    if dtype == torch.float32:
        rows = 32 if channels <= 192 else 16
        return {"BLOCK_A": rows, "BLOCK_B": 16, "num_warps": 4, "num_stages": 1}, None
    if channels > 288:
        return {"BLOCK_A": 32, "BLOCK_B": 32, "num_warps": 4, "num_stages": 2}, None
    small = {"BLOCK_A": 64, "BLOCK_B": 32, "num_warps": 4, "num_stages": 2}
    return (
        ({"BLOCK_A": 128, "BLOCK_B": 64, "num_warps": 8, "num_stages": 2}, small) if plain else (small, None)
    )


def lag_bias_config(dtype: torch.dtype) -> Config:
    if dtype == torch.float32:
        return {"BLOCK": 16, "num_warps": 8, "num_stages": 1}
    return {"BLOCK": 32, "num_warps": 4, "num_stages": 1}


def prepare_config() -> Config:
    return {"BLOCK_A": 64, "num_warps": 4}


def sum_near_lags_config() -> Config:
    return {"BLOCK_R": 128, "num_warps": 4}
