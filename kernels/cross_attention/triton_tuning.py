"""Which blocks, warps and stages are tried on a GPU at the first call of a size, and when none are."""

from functools import cache
from typing import Any

import torch
import triton

from binaural.kernels.cross_attention.triton_blocks import (
    backward_blocks,
    backward_lag_bias,
    forward_blocks,
    prepare_backward,
)
from binaural.kernels.cross_attention.triton_whole import backward_whole, forward_whole
from binaural.kernels.dispatch.launch import Launch

# Keys of the launches that were tuned in this process.
_tuned_before: set[tuple[Any, ...]] = set()


class TunedLaunch(Launch):
    """On a GPU its blocks and warps are tuned at the first call of a size; `config` is the fixed choice.

    The fixed choice is taken with deterministic algorithms, since tuning may choose differently on another
    day and with it the order of a sum, and in a CUDA graph's capture, during which nothing can be timed,
    unless this size was tuned before.
    """

    def __call__(self) -> None:
        if self.takes_fixed_choice():
            super().__call__()
        else:
            tuned(self.kernel)[self.grid](*self.arguments, **self.constants)
            _tuned_before.add(self.key())

    def takes_fixed_choice(self) -> bool:
        if triton.knobs.runtime.interpret or torch.are_deterministic_algorithms_enabled():
            return True
        return torch.cuda.is_current_stream_capturing() and self.key() not in _tuned_before

    def key(self) -> tuple[Any, ...]:
        """The kernel, its constants, and of each argument the dtype and device of a tensor or the number."""
        arguments = (
            (a.dtype, a.device) if isinstance(a, torch.Tensor) else None if isinstance(a, tuple) else a
            for a in self.arguments
        )
        return (self.kernel, *self.constants.items(), *arguments)


@cache
def tuned(kernel: Any) -> Any:
    """The kernel with the choice among several configurations that Triton times at the first call of a size.

    Sizes are told apart by the key: steps, channels and the number of problems, as a power of two. Triton
    leaves out a configuration that does not fit on the GPU, as the large ones in float32.
    """
    blocks = [
        triton.Config({"BLOCK_A": a, "BLOCK_B": b}, num_warps=warps, num_stages=stages)
        for a, b, warps, stages in (
            (128, 128, 8, 2),
            (128, 64, 8, 2),
            (128, 64, 8, 3),
            (128, 32, 8, 2),
            (128, 32, 4, 3),
            (64, 64, 4, 2),
            (64, 32, 4, 2),
            (64, 32, 4, 3),
            (32, 32, 4, 2),
            (32, 16, 4, 1),
            (32, 16, 8, 1),
        )
    ]
    lag_bias = [triton.Config({"BLOCK": b}, num_warps=w, num_stages=1) for b in (16, 32) for w in (4, 8)]
    whole = [
        triton.Config({"BLOCK_M": columns}, num_warps=warps, num_stages=1)
        for columns in (16, 32, 64)
        for warps in (1, 2, 4, 8)
    ]
    of_whole = ["n", "m", "D", "DV", "FULL", "NEAR", "problems"]
    of_blocks = ["a_count", "b_count", "D", "DV", "FULL", "problems"]
    configs, key = {
        forward_whole: (whole, of_whole),
        backward_whole: (whole, of_whole),
        forward_blocks: (blocks, of_blocks),
        backward_blocks: (blocks, of_blocks),
        prepare_backward: ([triton.Config({"BLOCK_A": 64}, num_warps=w) for w in (2, 4)], ["DV", "problems"]),
        backward_lag_bias: (lag_bias, ["n", "m", "D", "DV", "problems"]),
    }[kernel]
    prune = {"early_config_prune": worth_trying} if configs is whole else None
    return triton.autotune(configs=configs, key=key, prune_configs_by=prune, cache_results=True)(kernel)


def worth_trying(configs: list[Any], arguments: dict[str, Any], **constants: Any) -> list[Any]:
    """Configurations with 16 to 64 rows a warp, and columns that the call has.

    With more rows, registers spill by the thousand, and that takes minutes to compile; with fewer, warps
    repeat each other's products.
    """
    rows, m = constants["BLOCK_N"], arguments["m"]
    single = arguments["q_left"].dtype == torch.float32
    columns = [16, 32] if single else [32, 64]
    columns = [c for c in columns if c <= m and not (constants["FULL"] and m % c)] or [16]
    return [
        config
        for config in configs
        if rows // 64 <= config.num_warps <= rows // 16 and config.kwargs["BLOCK_M"] in columns
    ]
