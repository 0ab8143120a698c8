"""Inputs for the tests of cross-attention, and the definition's answers to them."""

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from binaural.kernels import cross_attention
from binaural.kernels.cross_attention import reference

NAMES = ("q_left", "q_right", "v_left", "v_right", "k_left", "k_right")


@dataclass(frozen=True)
class Case:
    """One call: shapes, options, and how large the inputs are."""

    r: int
    n: int
    m: int
    heads: int
    d: int
    dv: int
    separate: bool = False
    max_lag: int | None = None
    reach: int | None = None  # of the lag bias, L
    size: float = 1.0  # standard deviation of what is matched
    scale: float | None = None

    def __str__(self) -> str:
        text = f"{self.r}x{self.n}x{self.m}x{self.heads}-d{self.d}-dv{self.dv}"
        for name, value in (("lag", self.max_lag), ("bias", self.reach), ("scale", self.scale)):
            text += "" if value is None else f"-{name}{value}"
        text += "" if self.size == 1 else f"-size{self.size:g}"
        return text + ("-separate" if self.separate else "")

    def both(self) -> tuple["Case", "Case"]:
        """With shared and with separate similarity."""
        return replace(self, separate=False), replace(self, separate=True)


@dataclass
class Call:
    """Tensors of a case: inputs that need a gradient, and the outputs' gradients."""

    case: Case
    inputs: dict[str, Tensor]
    lag_bias: Tensor | None
    grads: tuple[Tensor, Tensor]
    options: dict[str, Any] = field(default_factory=dict)

    def leaves(self) -> list[Tensor]:
        return [*self.inputs.values(), *([] if self.lag_bias is None else [self.lag_bias])]

    def to(self, dtype: torch.dtype, device: str = "cpu") -> "Call":
        """A copy in another precision; the bias is never narrower than float32."""
        wide = torch.promote_types(dtype, torch.float32)
        inputs = {k: v.detach().to(device, dtype).requires_grad_() for k, v in self.inputs.items()}
        bias = None if self.lag_bias is None else self.lag_bias.detach().to(device, wide).requires_grad_()
        left, right = (g.to(device, dtype) for g in self.grads)
        return Call(self.case, inputs, bias, (left, right), self.options)

    def run(self, backend: str) -> list[Tensor]:
        """Outputs and gradients of every leaf, by the public function."""
        outputs = cross_attention(
            **self.inputs, **self.options, lag_bias=self.lag_bias, max_lag=self.case.max_lag, backend=backend
        )
        return [*outputs, *torch.autograd.grad(outputs, self.leaves(), self.grads)]

    def names(self) -> list[str]:
        bias = [] if self.lag_bias is None else ["lag_bias"]
        return ["o_left", "o_right", *(f"d {name}" for name in [*self.inputs, *bias])]


def make(case: Case, seed: int = 0) -> Call:
    """Normally distributed inputs in float64, each a number that every dtype can represent."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        values = torch.randn(*shape, generator=generator)
        return values.bfloat16().half().double()  # neither more mantissa nor more range than any of them has

    inputs = {}
    for name in NAMES[: 6 if case.separate else 4]:
        time = case.n if name.endswith("left") else case.m
        channels, size = (case.dv, 1.0) if name.startswith("v") else (case.d, case.size)
        inputs[name] = (normal(case.r, time, case.heads, channels) * size).requires_grad_()
    bias = None if case.reach is None else normal(case.heads, 2 * case.reach + 1).requires_grad_()
    grads = (normal(case.r, case.n, case.heads, case.dv), normal(case.r, case.m, case.heads, case.dv))
    options = {} if case.scale is None else {"scale": case.scale}
    return Call(case, inputs, bias, grads, options)


def defined(call: Call) -> list[Tensor]:
    """What the definition gives for the call, in the precision of its tensors."""
    scale = call.options.get("scale", call.case.d**-0.5)
    outputs = reference(**call.inputs, scale=scale, max_lag=call.case.max_lag, lag_bias=call.lag_bias)
    return [*outputs, *torch.autograd.grad(outputs, call.leaves(), call.grads)]


def relative_error(result: Tensor, expected: Tensor) -> float:
    """Norm of the difference against that of the expected. Gradients that cancel to nothing are measured
    against 0.1 per element, small beside the inputs' 1."""
    difference = torch.linalg.vector_norm(result.detach().cpu().double() - expected.double())
    size = torch.linalg.vector_norm(expected.double()).clamp(min=0.1 * max(expected.numel(), 1) ** 0.5)
    return (difference / size).item()


def packed(call: Call) -> Call:
    """The same call on the views that a packed channels-last projection [B, H, W, C] gives."""
    stacked = {}
    for time in ("left", "right"):
        names = [name for name in call.inputs if name.endswith(time)]
        values = [call.inputs[name].detach() for name in names]
        projection = torch.cat([v.flatten(2) for v in values], dim=2)[None]  # [1, R, time, channels]
        parts = projection.split([v[0, 0].numel() for v in values], dim=3)
        for name, part, value in zip(names, parts, values, strict=True):
            stacked[name] = part.flatten(0, 1).unflatten(2, value.shape[2:]).requires_grad_()
    inputs = {name: stacked[name] for name in call.inputs}
    return Call(call.case, inputs, call.lag_bias, call.grads, call.options)
