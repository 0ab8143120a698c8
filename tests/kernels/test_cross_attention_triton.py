"""The Triton kernels between guards, float32 on tensor cores, statistics, and what is declined.

They run on a GPU, or else through Triton's interpreter, and in the suite of all backends too.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cross_attention_cases import NAMES, Case, defined, make
from torch import Tensor

from binaural.kernels import cross_attention, packed_cross_attention, use_backend
from binaural.kernels.cross_attention import reference
from binaural.kernels.dispatch.backends import WHY_UNAVAILABLE

WHY_NOT = WHY_UNAVAILABLE["triton", "cross_attention"]
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def inputs_of(case: Case, dtype: torch.dtype) -> list[Tensor | None]:
    """q_left, q_right, v_left, v_right, k_left, k_right, lag_bias."""
    call = make(case).to(dtype, DEVICE)
    return [*(call.inputs.get(name) for name in NAMES), call.lag_bias]


CASES = [
    Case(2, 16, 16, 2, 16, 16, reach=15),  # exact tiles
    Case(2, 32, 64, 1, 64, 32, separate=True, reach=40),
    Case(3, 20, 33, 2, 24, 40, reach=5, max_lag=7),
    Case(2, 1, 9, 3, 1, 3, separate=True),
    Case(1, 100, 1, 2, 5, 12, reach=3),
    Case(1, 20, 1, 2, 5, 128),
    Case(2, 17, 30, 1, 48, 7, max_lag=0, reach=2),
    Case(1, 128, 128, 1, 32, 32, reach=127),
    Case(1, 40, 4, 2, 8, 8, max_lag=3),  # left steps beyond 6 have no key
    Case(1, 24, 24, 2, 16, 16, size=100.0),
    # full tiles, a bias of few lags, one exponential or (where logits are large) one for each direction
    Case(2, 128, 128, 1, 32, 32, reach=8),
    Case(2, 64, 64, 1, 64, 64, separate=True, reach=8),
    Case(2, 32, 64, 2, 16, 16, reach=3),
    Case(1, 64, 32, 1, 16, 16, reach=8, size=30.0),
    Case(1, 64, 128, 1, 16, 16, reach=8, size=100.0),
    # a block at a time
    Case(1, 256, 128, 1, 16, 32),
    Case(1, 128, 256, 1, 16, 16, size=100.0),
    Case(1, 192, 128, 2, 16, 32, reach=9),
    Case(1, 130, 40, 1, 20, 20, separate=True, reach=131),
    Case(1, 7, 170, 2, 16, 24, reach=12, max_lag=2),  # right steps beyond 8 have no key
    Case(1, 129, 131, 1, 120, 5, separate=True),
    Case(1, 33, 40, 1, 16, 300, reach=4),  # values in several parts
    Case(2, 140, 90, 1, 16, 16, separate=True, reach=20, max_lag=50),
    Case(1, 150, 150, 1, 16, 16, size=100.0),
]
# Where a query has a single key, or logits are very large, p (dp - delta) cancels, and the rounding of the
# outputs, from which delta is computed, remains.
BIAS_GRADIENT_FROM_ROUNDED_OUTPUTS = [
    (Case(2, 17, 30, 1, 48, 7, max_lag=0, reach=2), torch.bfloat16),
    (Case(1, 64, 32, 1, 16, 16, reach=8, size=30.0), torch.float32),
    (Case(1, 64, 32, 1, 16, 16, reach=8, size=30.0), torch.float16),
]


def in_pytorch(
    q_left: Tensor,
    q_right: Tensor,
    v_left: Tensor,
    v_right: Tensor,
    k_left: Tensor | None,
    k_right: Tensor | None,
    lag_bias: Tensor | None,
    scale: float,
    max_lag: int | None,
) -> tuple[Tensor, Tensor]:
    """The operation as a user of PyTorch would write it, in the inputs' own precision."""
    lag = torch.arange(q_right.shape[1])[None, :] - torch.arange(q_left.shape[1])[:, None]
    lag = lag.to(q_left.device)

    def similarity(a: Tensor, b: Tensor) -> Tensor:
        s = (a * scale).transpose(1, 2) @ b.permute(0, 2, 3, 1)
        if lag_bias is not None:
            longest = lag_bias.shape[1] // 2
            bias = lag_bias[:, (lag + longest).clamp(0, 2 * longest)]
            s = s + torch.where(lag.abs() <= longest, bias, 0).to(s.dtype)
        if max_lag is not None:
            s = s.masked_fill(lag.abs() > max_lag, torch.finfo(s.dtype).min)
        return s

    def softmax(s: Tensor, dim: int) -> Tensor:
        p = torch.softmax(s, dim)
        return p if max_lag is None else p * (lag.abs() <= max_lag)

    s_left = similarity(q_left, q_right if k_right is None else k_right)
    s_right = similarity(q_left if k_left is None else k_left, q_right)
    o_left = softmax(s_left, -1) @ v_right.transpose(1, 2)
    o_right = softmax(s_right, -2).transpose(2, 3) @ v_left.transpose(1, 2)
    return o_left.transpose(1, 2), o_right.transpose(1, 2)


def outputs_and_gradients(
    function: Callable[..., tuple[Tensor, Tensor]], inputs: list[Tensor | None], dtype: torch.dtype | None
) -> list[Tensor]:
    """Both outputs, and the gradients of all inputs for fixed random gradients of the outputs."""
    leaves = [None if t is None else t.detach().to(dtype or t.dtype).requires_grad_() for t in inputs]
    outputs = function(*leaves)
    generator = torch.Generator().manual_seed(1)
    low = inputs[0].dtype
    do = [torch.randn(o.shape, generator=generator).to(DEVICE, low).to(o.dtype) for o in outputs]
    return [*outputs, *torch.autograd.grad(outputs, [t for t in leaves if t is not None], do)]


def fused(case: Case) -> Callable[..., tuple[Tensor, Tensor]]:
    def function(*tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        *qvk, bias = tensors
        return cross_attention(*qvk, max_lag=case.max_lag, lag_bias=bias, backend="triton")

    return function


def error(value: Tensor, exact: Tensor) -> float:
    """Largest error, relative to the largest exact value; where all cancels to nothing, to 0.3."""
    largest = exact.abs().max()
    return ((value.double() - exact).abs().max() / (largest if largest > 1e-12 else 0.3)).item()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=lambda d: str(d)[6:])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_matches_the_definition(
    case: Case, dtype: torch.dtype, check_guards: Callable[[], None], request: pytest.FixtureRequest
) -> None:
    """At most twice PyTorch's own error in that precision, and a few roundings; nothing else is written."""
    if (case, dtype) in BIAS_GRADIENT_FROM_ROUNDED_OUTPUTS:
        reason = "the gradient of the lag bias is inexact: its delta comes from rounded outputs"
        request.applymarker(pytest.mark.xfail(strict=True, reason=reason))
    inputs, scale = inputs_of(case, dtype), case.d**-0.5

    def definition(*tensors: Tensor | None) -> tuple[Tensor, Tensor]:
        *qvk, bias = tensors
        return reference(*qvk, scale=scale, max_lag=case.max_lag, lag_bias=bias)

    ours = outputs_and_gradients(fused(case), inputs, None)
    check_guards()
    exact = outputs_and_gradients(definition, inputs, torch.float64)
    theirs = outputs_and_gradients(lambda *t: in_pytorch(*t, scale, case.max_lag), inputs, None)
    given = [name for name, t in zip((*NAMES, "lag_bias"), inputs, strict=True) if t is not None]
    names = ["o_left", "o_right", *(f"d {name}" for name in given)]
    # The backward takes probabilities from the lse, which is rounded in float32, and subtracts from dp its
    # mean, taken from the outputs: where a query has one partner, only their roundings are left of it.
    single = torch.finfo(torch.float32).eps
    floor = 4 * (torch.finfo(dtype).eps + single * case.size**2) + 40 * single
    for name, our, truth, their in zip(names, ours, exact, theirs, strict=True):
        assert torch.isfinite(our).all(), name
        assert error(our, truth) <= 2 * error(their, truth) + floor, name


def test_statistics() -> None:
    """lse is the natural logarithm of the denominator, -inf for a query whose keys are all masked."""
    q_left, q_right, v_left, v_right, *_ = inputs_of(Case(2, 30, 12, 2, 16, 16), torch.float32)
    forward = torch.ops.binaural.cross_attention_forward_triton
    o_left, _, lse_left, lse_right = forward(q_left, q_right, v_left, v_right, None, None, None, 0.25, 4)
    lag = torch.arange(12)[None, :] - torch.arange(30)[:, None]
    s = torch.einsum("rihd,rjhd->rhij", q_left, q_right).cpu() * 0.25
    s = s.masked_fill(lag.abs() > 4, float("-inf"))
    torch.testing.assert_close(lse_left.cpu(), s.logsumexp(-1))
    torch.testing.assert_close(lse_right.cpu(), s.logsumexp(-2))
    assert (o_left[:, 16:] == 0).all()


@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.5])
@pytest.mark.parametrize("steps", [(64, 128), (128, 256), (100, 150)])
def test_a_scale_of_any_sign(steps: tuple[int, int], scale: float) -> None:
    inputs = inputs_of(Case(1, *steps, 1, 16, 16), torch.float32)[:4]
    outputs = cross_attention(*inputs, scale=scale, backend="triton")
    for o, exact in zip(outputs, reference(*inputs, scale=scale), strict=True):
        torch.testing.assert_close(o, exact, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("largest", [7.9, 8.6, 41.0, 42.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_logits_at_the_limit_of_the_shared_exponential(dtype: torch.dtype, largest: float) -> None:
    """All logits of one row are `largest`, of another -`largest`: powers around the limits 2^12 and 2^60."""
    q_left, q_right, v_left, v_right, *_ = inputs_of(Case(1, 64, 64, 1, 16, 16), dtype)
    q_left, q_right = torch.zeros_like(q_left), torch.zeros_like(q_right)
    q_left[0, 3, 0, 0], q_left[0, 4, 0, 0], q_right[..., 0] = 1, -1, largest
    inputs = (q_left, q_right, v_left, v_right)
    ours = cross_attention(*inputs, scale=1.0, backend="triton")
    exact = reference(*(t.double() for t in inputs), scale=1.0)
    theirs = in_pytorch(*inputs, None, None, None, 1.0, None)
    for our, truth, their in zip(ours, exact, theirs, strict=True):
        assert error(our, truth) <= 2 * error(their, truth) + 2 * torch.finfo(dtype).eps


@pytest.mark.parametrize("steps", [64, 40, 70])
def test_a_bias_of_minus_infinity_masks(steps: int) -> None:
    """Some lags, then all of them, when all outputs and gradients are zeros."""
    call = make(Case(1, steps, steps, 2, 16, 16, reach=8)).to(torch.float32, DEVICE)
    with torch.no_grad():
        call.lag_bias[0, 5:9] = float("-inf")
        call.lag_bias[1, ::2] = float("-inf")
    for ours, exact in zip(call.run("triton"), defined(call), strict=True):
        torch.testing.assert_close(ours, exact, atol=1e-5, rtol=1e-5)
    call = make(Case(1, 8, 8, 2, 16, 16, reach=8)).to(torch.float32, DEVICE)
    with torch.no_grad():
        call.lag_bias.fill_(float("-inf"))
    for ours in call.run("triton"):
        assert (ours == 0).all()


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["q_left", "q_right", "k_right", "v_right"])
@pytest.mark.parametrize("steps", [40, 70])  # whole, and a block at a time
def test_what_is_not_finite_does_not_pass_a_mask(steps: int, name: str, poison: float) -> None:
    """Where the reference is finite, the kernels give the same values; masked lags have a gradient of 0."""
    case = Case(1, steps, steps, 2, 16, 16, max_lag=2, reach=5, separate=name.startswith("k"))
    call = make(case).to(torch.float32, DEVICE)
    with torch.no_grad():
        call.inputs[name][0, 20, 0, 3] = poison
    ours, exact = call.run("triton"), defined(call)
    for what, our, value in zip(call.names(), ours, exact, strict=True):
        finite = value.isfinite()
        torch.testing.assert_close(our[finite], value[finite], atol=2e-5, rtol=1e-4, msg=what)
    by_name = dict(zip(call.names(), ours, strict=True))
    assert (
        by_name["lag_bias" if "lag_bias" in by_name else "d lag_bias"][:, [0, 1, 2, -3, -2, -1]].eq(0).all()
    )
    if name == "q_right":  # rows that mask the key
        far = [i for i in range(steps) if abs(i - 20) > 2]
        assert by_name["o_left"][:, far].isfinite().all()
        assert by_name["d v_left"][:, far].isfinite().all()


def test_a_packed_tensor_is_neither_split_nor_joined() -> None:
    """The kernels write outputs and gradients of both ears where they belong: no operator copies them."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Operators(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.names: list[str] = []

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(str(function))
            return function(*args, **(kwargs or {}))

    packed = torch.randn(4, 20, 2 * (16 + 16), device=DEVICE, requires_grad=True)
    bias = torch.randn(2, 17, device=DEVICE, requires_grad=True)
    with Operators() as seen:
        o = packed_cross_attention(packed, 2, 32, 32, lag_bias=bias, backend="triton")
        torch.autograd.grad(o, (packed, bias), torch.ones_like(o))
    copies = [
        name for name in seen.names if any(word in name for word in ("cat", "copy", "clone", "fill", "zero"))
    ]
    assert not copies
    assert sum("packed" in name for name in seen.names) == 2


def shortened(values: np.ndarray) -> np.ndarray:
    """float32 as tensor cores take it: cut to 10 bits of mantissa (TF32)."""
    return (values.view(np.int32) & ~np.int32(0x1FFF)).view(np.float32)


@pytest.mark.skipif(DEVICE == "cuda", reason="a GPU's own tensor cores are tested with every other backend")
@pytest.mark.parametrize(("products", "tolerance"), [(3, 5e-6), (1, None)])
def test_float32_keeps_its_precision_on_tensor_cores(
    products: int, tolerance: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three products of shortened operands (input_precision="tf32x3") are as good as float32; one is not."""
    from triton.runtime.interpreter import TensorHandle, interpreter_builder

    def dot(a: Any, b: Any, d: Any, *_: object) -> Any:
        a_large, b_large = shortened(a.data), shortened(b.data)
        result = a_large @ b_large
        if products == 3:
            result = shortened(a.data - a_large) @ b_large + a_large @ shortened(b.data - b_large) + result
        return TensorHandle(result + d.data, d.dtype.scalar)

    monkeypatch.setattr(interpreter_builder, "create_dot", dot)
    for case in (Case(1, 100, 128, 1, 32, 32, reach=9), Case(1, 150, 40, 1, 24, 40)):
        inputs, scale = inputs_of(case, torch.float32), case.d**-0.5

        def definition(*tensors: Tensor | None, scale: float = scale) -> tuple[Tensor, Tensor]:
            *qvk, bias = tensors
            return reference(*qvk, scale=scale, max_lag=None, lag_bias=bias)

        ours = outputs_and_gradients(fused(case), inputs, None)
        exact = outputs_and_gradients(definition, inputs, torch.float64)
        errors = [error(our, truth) for our, truth in zip(ours, exact, strict=True)]
        assert max(errors) < tolerance if tolerance is not None else max(errors) > 1e-4, errors


def test_declines_what_it_does_not_cover() -> None:
    wide = torch.zeros(1, 4, 1, 129, device=DEVICE)
    with pytest.raises(ValueError, match="at most 128 channels of q per head, and these have 129"):
        cross_attention(wide, wide, wide, wide, backend="triton")
    double = torch.zeros(1, 4, 1, 8, device=DEVICE, dtype=torch.float64)
    with use_backend("triton"), pytest.raises(ValueError, match="float64"):
        cross_attention(double, double, double, double)
