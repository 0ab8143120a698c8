"""Correctness of the kernels and of a compiled training step on one device, without pytest or a network.

    python -m benchmarks.gpu_check --device cuda

compares outputs and gradients of every backend with the definition in float64, beside two calls of PyTorch's
`scaled_dot_product_attention`: in low precision a kernel may have twice their error. The second run must give
the same bits. Then the network of train.py, compiled as train.py does, takes ten steps beside the eager one.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.report import table
from benchmarks.step_networks import OURS, SYSTEMS, Problem, Setting, Step
from binaural.device import choose_precision
from binaural.kernels import cross_attention
from binaural.kernels.cross_attention import reference
from binaural.kernels.dispatch.backends import BACKENDS, WHY_UNAVAILABLE

STEPS = 10
# Losses of compiled and eager steps may differ by this share: in low precision roundings differ, and grow.
LOSS_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 2e-2, torch.float16: 2e-2}
# Errors below this are rounding of the results, whatever PyTorch's own error is.
LEAST_ERROR = {torch.float32: 2e-5, torch.bfloat16: 4e-3, torch.float16: 1e-3}


@dataclass(frozen=True)
class Shape:
    """A call: sizes, lags of the bias, longest lag, and the standard deviation of the queries."""

    r: int
    n: int
    m: int
    heads: int
    d: int
    dv: int
    reach: int | None = None
    max_lag: int | None = None
    size: float = 1.0

    def __str__(self) -> str:
        text = f"{self.r} x {self.n} x {self.m} x {self.heads}, d {self.d}, dv {self.dv}"
        text += "" if self.reach is None else f", bias of {2 * self.reach + 1} lags"
        text += "" if self.max_lag is None else f", max_lag {self.max_lag}"
        return text + ("" if self.size == 1 else f", size {self.size:g}")


SHAPES = (
    Shape(32, 128, 128, 4, 32, 32, reach=8),
    Shape(32, 64, 64, 4, 64, 64, reach=8),
    Shape(32, 16, 16, 8, 64, 64, reach=8),
    Shape(4, 100, 60, 2, 24, 40, reach=3, max_lag=10),  # some queries have no key
    Shape(4, 128, 128, 2, 32, 32, reach=127, size=3),
    Shape(2, 300, 520, 2, 24, 40, reach=6),
    Shape(1, 1024, 1024, 1, 16, 128),
)


Attention = Callable[..., tuple[Tensor, Tensor]]


def run(attention: Attention, inputs: Sequence[Tensor], shape: Shape) -> list[Tensor]:
    """Outputs and gradients of all inputs: queries, values and the bias, if there is one."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    outputs = attention(
        *leaves[:4],
        scale=shape.d**-0.5,
        max_lag=shape.max_lag,
        lag_bias=leaves[4] if len(leaves) > 4 else None,
    )
    gradients = [torch.ones_like(o) + o.detach() for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, leaves, gradients)]


def two_sdpa_calls(
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    scale: float,
    max_lag: int | None,
    lag_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """What PyTorch has for cross-attention of both ears: a call for each, the lags' bias as a mask."""
    ql, qr, vl, vr = (x.transpose(1, 2) for x in (q_left, q_right, v_left, v_right))
    n, m, device = q_left.shape[1], q_right.shape[1], q_left.device
    lags = torch.arange(m, device=device) - torch.arange(n, device=device)[:, None]
    mask = None
    if lag_bias is not None:
        reach = lag_bias.shape[1] // 2
        bias = lag_bias.to(q_left.dtype)[:, (lags + reach).clamp(0, 2 * reach)]
        mask = bias.masked_fill(lags.abs() > reach, 0)
    if max_lag is not None:
        mask = q_left.new_zeros(1, n, m) if mask is None else mask
        mask = mask.masked_fill(lags.abs() > max_lag, -torch.inf)
    turned = None if mask is None else mask.mT
    o_left = F.scaled_dot_product_attention(ql, qr, vr, attn_mask=mask, scale=scale)
    o_right = F.scaled_dot_product_attention(qr, ql, vl, attn_mask=turned, scale=scale)
    return o_left.transpose(1, 2), o_right.transpose(1, 2)


def make_inputs(shape: Shape, dtype: torch.dtype, device: str) -> list[Tensor]:
    """Queries, values and the bias of a call, the same for every device."""
    generator = torch.Generator().manual_seed(0)

    def normal(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=generator)

    s = shape
    tensors = [normal(s.r, length, s.heads, s.d) * s.size for length in (s.n, s.m)]
    tensors += [normal(s.r, length, s.heads, s.dv) for length in (s.n, s.m)]
    tensors = [x.to(device, dtype) for x in tensors]
    return tensors if s.reach is None else [*tensors, normal(s.heads, 2 * s.reach + 1).to(device)]


def error(result: Tensor, exact: Tensor) -> float:
    """Norm of the difference over that of the exact one, which counts as at least 0.1 per element."""
    size = torch.linalg.vector_norm(exact).clamp(min=0.1 * exact.numel() ** 0.5)
    return (torch.linalg.vector_norm(result.double() - exact) / size).item()


def check_kernels(device: str, shapes: Sequence[Shape] = SHAPES) -> Iterator[dict[str, object]]:
    """One row for each backend, shape and dtype: largest errors, and the reason if it fails."""
    names = ("o_left", "o_right", "dq_left", "dq_right", "dv_left", "dv_right", "dlag_bias")
    for backend in BACKENDS[1:]:
        if (backend == "cpp") != (device == "cpu") or WHY_UNAVAILABLE[backend, "cross_attention"] is not None:
            continue
        kernel = partial(cross_attention, backend=backend)
        for shape in shapes:
            for dtype in (torch.bfloat16, torch.float16, torch.float32):
                inputs = make_inputs(shape, dtype, device)
                exact = run(reference, [x.double() for x in inputs], shape)
                ours, again = run(kernel, inputs, shape), run(kernel, inputs, shape)
                errors = [error(*pair) for pair in zip(ours, exact, strict=True)]
                pytorch = [
                    error(*pair) for pair in zip(run(two_sdpa_calls, inputs, shape), exact, strict=True)
                ]
                wrong = [
                    f"{name} {of_kernel:.1e}, PyTorch's {of_pytorch:.1e}"
                    for name, of_kernel, of_pytorch in zip(names, errors, pytorch, strict=False)
                    if not accepted(of_kernel, of_pytorch, dtype)
                ]
                if not all(torch.equal(a, b) for a, b in zip(ours, again, strict=True)):
                    wrong.append("the second run gives other bits")
                yield {
                    "backend": backend,
                    "call": str(shape),
                    "dtype": str(dtype).removeprefix("torch."),
                    "error": max(errors),
                    "of_pytorch": max(pytorch),
                    "wrong": "; ".join(wrong),
                }


def accepted(of_kernel: float, of_pytorch: float, dtype: torch.dtype) -> bool:
    """Whether the error of a kernel is small enough. NaN never is; PyTorch's is NaN if a query has no key."""
    return of_kernel <= LEAST_ERROR[dtype] or of_kernel <= 2 * of_pytorch


def losses(problem: Problem, setting: Setting, steps: int = STEPS) -> list[float]:
    """The loss of each training step of the network of train.py, from the same weights and batch always."""
    step = Step(SYSTEMS[OURS], problem, setting)
    taken = []
    for _ in range(steps):
        loss = step.compute_loss(step.predict())
        loss.backward()
        step.update()
        taken.append(loss.item())
    return taken


def check_compiled(
    device: str, precision: torch.dtype, problem: Problem, graphs: bool = False
) -> tuple[list[float], list[float], str]:
    """Losses of eager and of compiled steps, channels-last, and what is wrong with them."""
    eager = losses(problem, Setting(device, precision, compiled=False))
    compiled = losses(problem, Setting(device, precision, compiled=True, graphs=graphs))
    wrong = [
        f"step {number}: {b:.4f} compiled, {a:.4f} eager"
        for number, (a, b) in enumerate(zip(eager, compiled, strict=True))
        if not abs(a - b) <= LOSS_TOLERANCE[precision] * abs(a)
    ]
    if not eager[-1] < eager[0]:
        wrong.append(f"the eager loss does not fall: {eager[0]:.4f} to {eager[-1]:.4f}")
    return eager, compiled, "; ".join(wrong)


def main() -> None:
    parser = argparse.ArgumentParser(description="Correctness of kernels and of a compiled training step.")
    devices = ("cuda", "cpu") if torch.cuda.is_available() else ("cpu",)
    parser.add_argument("--device", choices=devices, default=devices[0])
    options = parser.parse_args()
    # float32 is compared in float32 throughout.
    torch.backends.cuda.matmul.allow_tf32 = False
    failed = 0
    print("# Correctness\n")
    print(
        "Errors are norms of differences from the definition in float64. In low precision a kernel may have"
    )
    print("twice the error of two calls of scaled_dot_product_attention.\n")
    rows = []
    for row in check_kernels(options.device):
        failed += bool(row["wrong"])
        rows.append(
            (
                row["backend"], row["call"], row["dtype"], f"{row['error']:.1e}",
                f"{row['of_pytorch']:.1e}", row["wrong"] or "passed",
            )
        )  # fmt: skip
    print(table(("backend", "call", "dtype", "largest error", "PyTorch's", "result"), rows), flush=True)
    precision, _ = choose_precision("auto", torch.device(options.device))
    problem = Problem(32, 128, 8) if options.device == "cuda" else Problem(8, 32, 2)
    eager, compiled, wrong = check_compiled(options.device, precision, problem)
    failed += bool(wrong)
    print(f"\n## {STEPS} training steps, compiled and eager: {problem}, {precision}\n")
    print(f"- eager: {', '.join(f'{loss:.4f}' for loss in eager)}")
    print(f"- compiled: {', '.join(f'{loss:.4f}' for loss in compiled)}")
    print(f"- {wrong or 'passed'}")
    if failed:
        raise SystemExit(f"benchmarks.gpu_check: {failed} checks failed")


if __name__ == "__main__":
    main()
