"""Our attention beside PyTorch's at the network's own calls: `python -m benchmarks.gpu_compare`.

Forward and backward, in turn, at the sizes of the network that train.py makes: Triton with its fixed and with
its tuned configuration, CUDA C++, and two calls of `scaled_dot_product_attention` for each of its backends. A
call that a backend of PyTorch refuses is left out, with the reason. Writes a table and JSON after each size.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.cross_attention import count_flops
from benchmarks.gpu_check import Attention, two_sdpa_calls
from benchmarks.graphs import capture
from benchmarks.machine import describe_machine
from benchmarks.measure import Spread, interleave, ratio
from benchmarks.report import Report, table
from binaural.kernels import cross_attention, packed_cross_attention
from binaural.kernels.dispatch.backends import BACKENDS, WHY_UNAVAILABLE


@dataclass(frozen=True)
class Size:
    """A call with as many steps of both ears; `lags` of the bias, or none."""

    name: str
    r: int
    n: int
    heads: int
    d: int
    dv: int
    lags: int | None

    def __str__(self) -> str:
        bias = "no bias" if self.lags is None else f"a bias of {self.lags} lags"
        return f"{self.name}: {self.r} x {self.n} x {self.heads} heads, d {self.d}, dv {self.dv}, {bias}"


# The network of train.py with 64 base channels, 256 x 256 input, batch 32; then the sizes of older profiles.
SIZES = {
    "cuda": (
        Size("level 3", 2048, 64, 4, 64, 64, 17),
        Size("level 3", 2048, 64, 4, 64, 64, None),
        Size("level 5", 512, 16, 8, 64, 64, 17),
        Size("level 5", 512, 16, 8, 64, 64, None),
        Size("level 2, batch 8", 512, 128, 4, 32, 32, 17),
        Size("level 2, batch 8", 512, 128, 4, 32, 32, None),
        Size("dense plane", 1, 4096, 1, 16, 128, None),
        Size("dense plane", 1, 16384, 1, 16, 128, None),
    ),
    "cpu": (Size("level 5", 8, 16, 8, 64, 64, 17), Size("level 5", 8, 16, 8, 64, 64, None)),
}
ROUNDS = 20


@contextmanager
def fixed_configuration() -> Iterator[None]:
    """Triton kernels are not tuned inside; memory is not filled, which would count as time."""
    deterministic: Any = torch.utils.deterministic  # its attributes are unknown to mypy
    filled = deterministic.fill_uninitialized_memory
    before = torch.are_deterministic_algorithms_enabled()
    deterministic.fill_uninitialized_memory = False
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        deterministic.fill_uninitialized_memory = filled


def _fixed(*inputs: Tensor, **options: Any) -> tuple[Tensor, Tensor]:
    with fixed_configuration():
        return cross_attention(*inputs, backend="triton", **options)


def _sdpa(backend: SDPBackend, *inputs: Any, **options: Any) -> tuple[Tensor, Tensor]:
    with sdpa_kernel(backend):
        return two_sdpa_calls(*inputs, **options)


def attentions(device: str, size: Size) -> dict[str, Attention]:
    """The implementations by name, ours first."""
    usable = [b for b in BACKENDS[1:] if WHY_UNAVAILABLE[b, "cross_attention"] is None]
    ours: dict[str, Attention] = {}
    for backend in usable:
        if (backend == "cpp") != (device == "cpu"):
            continue
        if backend == "triton":
            ours["triton, fixed"] = _fixed
        ours["triton, tuned" if backend == "triton" else backend] = partial(cross_attention, backend=backend)
    # A matrix of all pairs would not fit, or would take most of the time.
    stored = size.r * size.heads * size.n**2 <= 1 << 27
    sdpa = {
        f"2 x SDPA, {backend.name.removesuffix('_ATTENTION').lower()}": partial(_sdpa, backend)
        for backend in (
            SDPBackend.CUDNN_ATTENTION,
            SDPBackend.FLASH_ATTENTION,
            SDPBackend.EFFICIENT_ATTENTION,
            *([SDPBackend.MATH] if stored else []),
        )
    }
    return ours | sdpa


class Run:
    """Forward and backward of one implementation: from one packed projection of both ears, as in the network,
    to the gradients of the projection and of the bias. None stands for `packed_cross_attention`."""

    def __init__(
        self, attention: Attention | None, size: Size, projection: Tensor, bias: Tensor | None
    ) -> None:
        self._attention, self._size = attention, size
        self._leaves = [projection] if bias is None else [projection, bias]
        self._bias = bias
        shape = (2 * size.r, size.n, size.heads, size.dv)
        self._gradient = torch.randn(shape, device=projection.device, dtype=projection.dtype)
        self._output: Tensor | None = None

    def forward(self) -> None:
        s, projection = self._size, self._leaves[0]
        channels = (s.heads * s.d, s.heads * s.dv)
        if self._attention is None:
            self._output = packed_cross_attention(projection, s.heads, *channels, lag_bias=self._bias)
            return
        parts = (part.unflatten(2, (s.heads, -1)) for part in projection.split(channels, dim=2))
        ears = [ear for part in parts for ear in part.chunk(2)]
        self._output = torch.cat(self._attention(*ears, scale=s.d**-0.5, max_lag=None, lag_bias=self._bias))

    def backward(self) -> None:
        assert self._output is not None
        torch.autograd.grad(self._output, self._leaves, self._gradient)
        self._output = None


def measure(size: Size, device: str, dtype: torch.dtype) -> tuple[list[dict[str, Any]], list[str]]:
    """One row for each implementation and phase, and why implementations are missing."""
    channels = size.heads * (size.d + size.dv)
    projection = torch.randn(2 * size.r, size.n, channels, device=device, dtype=dtype).requires_grad_()
    bias = None if size.lags is None else torch.randn(size.heads, size.lags, device=device).requires_grad_()
    phases: dict[str, Callable[[], object]] = {}
    missing, names = [], []
    for name, attention in {"packed": None, **attentions(device, size)}.items():
        run = Run(attention, size, projection, bias)
        try:
            run.forward()  # compiles and tunes
            run.backward()
            of_phases = (run.forward, run.backward) if device == "cpu" else capture(run)
        except RuntimeError as reason:  # also of too little memory
            missing.append(f"{name}: {str(reason).splitlines()[0]}")
            continue
        names.append(name)
        phases[f"{name} forward"], phases[f"{name} backward"] = of_phases
    taken = interleave(phases, ROUNDS, warm_up=2)
    for name in names:
        pairs = zip(taken[f"{name} forward"], taken[f"{name} backward"], strict=True)
        taken[f"{name} both"] = [a + b for a, b in pairs]
    forward, backward = count_flops(size.r * size.heads * size.n**2, size.d, size.dv)
    flops = {"forward": forward, "backward": backward, "both": forward + backward}
    rows = []
    for phase, operations in flops.items():
        for name in names:
            spread = Spread.of(taken[f"{name} {phase}"])
            rows.append(
                {
                    "size": str(size),
                    "phase": phase,
                    "implementation": name,
                    "seconds": asdict(spread),
                    "gflops": operations / spread.p50 / 1e9,
                    "times_packed": asdict(ratio(taken[f"{name} {phase}"], taken[f"packed {phase}"])),
                }
            )
    return rows, missing


def section(size: Size, rows: list[dict[str, Any]], missing: list[str]) -> str:
    header = ("", "", "µs (p20 to p80)", "GFLOP/s", "times packed")
    lines = [
        (
            row["phase"],
            row["implementation"],
            f"{Spread(*(1e6 * row['seconds'][p] for p in ('p20', 'p50', 'p80'))):.1f}",
            f"{row['gflops']:.0f}",
            f"{Spread(**row['times_packed']):.2f}",
        )
        for row in rows
    ]
    left_out = "".join(f"\n- left out: {text}" for text in missing)
    return f"## {size}\n\n{table(header, lines)}" + (f"\n{left_out}" if missing else "")


def main() -> None:
    parser = argparse.ArgumentParser(description="Our attention beside PyTorch's at the network's own calls.")
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", choices=devices, default=devices[0])
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    options = parser.parse_args()
    dtype = getattr(torch, options.dtype)
    about = (
        "Forward and backward of one packed projection of both ears, [2 R, N, channels], to its gradient,"
        " with changes of layout. *packed* is the network's own call, `packed_cross_attention`, with the"
        " preferred backend. Medians of the device's time with the 20th and 80th percentile, replayed as CUDA"
        " graphs on a GPU; ratios are within a round."
    )
    machine = describe_machine(options.device, dtype)
    report = Report(f"attention-{options.dtype}", machine, f"Attention in {options.dtype}", [about])
    results: list[dict[str, Any]] = []
    for size in SIZES[options.device]:
        rows, missing = measure(size, options.device, dtype)
        results += rows
        report.add(section(size, rows, missing), {"rows": results})


if __name__ == "__main__":
    main()
