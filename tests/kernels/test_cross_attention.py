"""Cross-attention: every backend against the definition."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from backend import Backend
from cross_attention_cases import NAMES, Call, Case, defined, make, packed, relative_error
from torch import Tensor

from binaural.kernels import cross_attention


@pytest.fixture(autouse=True)
def _available(request: pytest.FixtureRequest) -> None:
    if "backend" not in request.fixturenames:
        return
    backend = request.getfixturevalue("backend")
    backend.skip_unless_available("cross_attention")
    if backend.name == "triton" and backend.device == "cpu" and "case" in request.fixturenames:
        case = request.getfixturevalue("case")
        if case.r * case.n * case.m * case.heads > 100_000:
            pytest.skip("triton: its interpreter would take long; it has long cases of its own")


def each(*cases: Case) -> Any:
    """Parametrise over cases, with shared and with separate similarity."""
    return pytest.mark.parametrize("case", [c for case in cases for c in case.both()], ids=str)


def check(backend: Backend, call: Call, dtype: torch.dtype, tolerance: float) -> None:
    expected = defined(call)
    results = call.to(dtype, backend.device).run(backend.name)
    for name, result, value in zip(call.names(), results, expected, strict=True):
        assert result.shape == value.shape
        assert relative_error(result, value) < tolerance, name


SHAPES = [
    Case(2, 128, 128, 2, 32, 32),
    Case(3, 16, 16, 2, 64, 64),
    Case(2, 37, 53, 3, 5, 7),
    Case(1, 33, 31, 1, 1, 1),
    Case(2, 1, 70, 1, 64, 3),
    Case(2, 65, 1, 2, 3, 5),
    Case(1, 1, 1, 1, 8, 8),
    Case(1, 20, 24, 1, 128, 17),
    Case(1, 24, 20, 2, 100, 128),
    Case(1, 20, 24, 1, 16, 300),  # values wider than kernels for GPUs take at a time
]
# Longer than what one tile of a blockwise kernel takes.
LONG = [Case(1, 300, 520, 1, 24, 40), Case(1, 600, 257, 2, 8, 12)]
LAGS = [
    Case(2, 37, 53, 3, 5, 7, reach=4),
    Case(2, 37, 53, 3, 5, 7, reach=0),
    Case(2, 37, 53, 3, 5, 7, reach=90),  # longer than any lag
    Case(2, 53, 37, 2, 16, 8, max_lag=6),
    Case(2, 53, 37, 2, 16, 8, max_lag=0),
    Case(2, 64, 64, 2, 16, 8, max_lag=9, reach=5),
    Case(2, 64, 64, 2, 16, 8, max_lag=5, reach=9),
    Case(2, 20, 90, 2, 16, 8, max_lag=10, reach=10),  # leaves queries without a partner
    Case(1, 300, 520, 1, 8, 8, max_lag=20, reach=400),
]


@each(*SHAPES, *LONG, *LAGS)
def test_float32_agrees_with_the_definition(backend: Backend, case: Case) -> None:
    check(backend, make(case), torch.float32, 1e-5)


@each(SHAPES[2], LAGS[0], LAGS[7], LONG[0])
def test_float64_agrees_with_the_definition(backend: Backend, case: Case) -> None:
    if torch.float64 not in backend.dtypes:
        pytest.skip(f"{backend} does not compute in float64")
    check(backend, make(case), torch.float64, 1e-12)


@each(Case(1, 40, 24, 2, 16, 16, scale=0.0), Case(1, 40, 24, 2, 16, 16, scale=-0.7))
def test_any_scale(backend: Backend, case: Case) -> None:
    check(backend, make(case), torch.float32, 1e-5)


@each(
    # one exponential for both directions: within the cheap bound, and only with a common shift
    Case(1, 40, 24, 2, 16, 16, size=3.0),
    Case(1, 40, 24, 2, 16, 16, size=3.8),
    Case(1, 300, 280, 1, 16, 8, size=3.8),
    # each direction by itself
    Case(1, 40, 24, 2, 16, 16, size=8.0),
    Case(1, 300, 280, 1, 16, 8, size=8.0, reach=5),
)
def test_large_similarities(backend: Backend, case: Case) -> None:
    # Rounding the similarity itself costs an error in proportion to its size: up to 300 here.
    check(backend, make(case), torch.float32, 1e-4)


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16], ids=str)
def test_logits_of_10000_take_the_largest(backend: Backend, dtype: torch.dtype, separate: bool) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend} does not take {dtype}")
    call = make(Case(1, 24, 24, 1, 1, 4, separate))
    # S[i, j] = ±10000, positive where i and j are of the same sign: means over half of the other ear
    sign = torch.tensor([1.0, -1.0]).repeat(12).double()[None, :, None, None]
    for name in call.inputs:
        if not name.startswith("v"):
            call.inputs[name] = (100 * sign).requires_grad_()
    call = call.to(dtype, backend.device)
    o_left, o_right, *gradients = call.run(backend.name)
    for output, values in ((o_left, call.inputs["v_right"]), (o_right, call.inputs["v_left"])):
        for start in (0, 1):
            mean = values[:, start::2].double().mean(1, keepdim=True).expand(-1, 12, -1, -1)
            torch.testing.assert_close(output[:, start::2].double(), mean, atol=1e-2, rtol=1e-2)
    assert all(torch.isfinite(g).all() for g in gradients)


def test_a_query_far_from_the_others_keeps_its_softmax(backend: Backend) -> None:
    # One exponential cannot serve both directions here: beside the largest similarity, a row would vanish.
    call = make(Case(1, 48, 40, 1, 8, 8))
    with torch.no_grad():
        call.inputs["q_right"] += 8
        call.inputs["q_left"][0, 5] = 8
        call.inputs["q_left"][0, 6] = -8
    check(backend, call, torch.float32, 1e-4)


@each(Case(2, 64, 48, 2, 32, 32), Case(2, 37, 53, 3, 5, 7, reach=3), Case(1, 300, 280, 1, 16, 16))
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_low_precision_errs_at_most_twice_as_much_as_pytorch(
    backend: Backend, case: Case, dtype: torch.dtype
) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend} does not take {dtype}")
    call = make(case)
    expected = defined(call)
    ours = call.to(dtype, backend.device).run(backend.name)
    theirs = _two_sdpa_calls(call.to(dtype))
    floor = torch.finfo(dtype).eps / 4
    for name, our, their, value in zip(call.names(), ours, theirs, expected, strict=True):
        assert relative_error(our, value) <= 2 * relative_error(their, value) + floor, name


def _two_sdpa_calls(call: Call) -> list[Tensor]:
    inputs = {name: t.transpose(1, 2) for name, t in call.inputs.items()}
    lag = torch.arange(call.case.m)[None, :] - torch.arange(call.case.n)[:, None]
    to_right = to_left = None
    if call.lag_bias is not None:
        reach = call.lag_bias.shape[1] // 2
        padded = F.pad(call.lag_bias, (1, 1))
        to_right = padded[:, (lag + reach + 1).clamp(0, 2 * reach + 2)].to(inputs["q_left"].dtype)[None]
        to_left = to_right.transpose(-1, -2)
    k_left, k_right = inputs.get("k_left", inputs["q_left"]), inputs.get("k_right", inputs["q_right"])
    left = F.scaled_dot_product_attention(inputs["q_left"], k_right, inputs["v_right"], attn_mask=to_right)
    right = F.scaled_dot_product_attention(inputs["q_right"], k_left, inputs["v_left"], attn_mask=to_left)
    outputs = (left.transpose(1, 2), right.transpose(1, 2))
    return [*outputs, *torch.autograd.grad(outputs, call.leaves(), call.grads)]


@each(
    Case(1, 4, 3, 2, 3, 2),
    Case(1, 1, 4, 1, 2, 1),
    Case(2, 3, 4, 1, 5, 3, reach=2),
    Case(1, 2, 6, 1, 2, 1, max_lag=2, reach=1),
    Case(1, 40, 35, 2, 100, 3, reach=7),
    Case(1, 1, 3, 1, 128, 128),
    Case(1, 4, 3, 2, 8, 16, reach=2),
)
def test_gradcheck(backend: Backend, case: Case) -> None:
    if torch.float64 not in backend.dtypes:
        pytest.skip(f"{backend} does not compute in float64")
    call = make(case).to(torch.float64, backend.device)
    names = [*call.inputs, *([] if call.lag_bias is None else ["lag_bias"])]

    def function(*leaves: Tensor) -> tuple[Tensor, Tensor]:
        arguments = dict(zip(names, leaves, strict=True))
        return cross_attention(**arguments, max_lag=case.max_lag, backend=backend.name)

    # The full Jacobian of the widest takes minutes; random projections of it do not.
    assert torch.autograd.gradcheck(function, call.leaves(), fast_mode=case.d > 8)


@each(
    Case(2, 37, 53, 3, 16, 8),
    Case(2, 40, 24, 2, 5, 7, reach=3),
    Case(1, 300, 20, 2, 8, 8),
    Case(2, 20, 32, 2, 16, 32, reach=3),
)
def test_views_of_a_packed_projection_give_the_same_bits(backend: Backend, case: Case) -> None:
    call = make(case).to(torch.float32, backend.device)
    views = packed(call)
    assert not views.inputs["q_left"].is_contiguous()
    for name, result, value in zip(
        call.names(), views.run(backend.name), call.run(backend.name), strict=True
    ):
        assert torch.equal(result, value), name


@each(Case(2, 37, 53, 3, 16, 8), Case(2, 40, 24, 1, 5, 1), Case(2, 20, 32, 2, 16, 32))
def test_any_strides_give_the_same_bits(backend: Backend, case: Case) -> None:
    call = make(case).to(torch.float32, backend.device)
    expected = call.run(backend.name)
    strided = {}
    for i, (name, tensor) in enumerate(call.inputs.items()):
        order = [(3, 1, 0, 2), (2, 3, 1, 0), (1, 0, 2, 3), (0, 3, 2, 1)][i % 4]
        copy = tensor.detach().permute(order).contiguous()
        strided[name] = copy.permute([order.index(dim) for dim in range(4)]).requires_grad_()
    left = call.grads[0].flip(0).flip(0).transpose(1, 3).contiguous().transpose(1, 3)
    result = Call(case, strided, call.lag_bias, (left, call.grads[1])).run(backend.name)
    for name, ours, value in zip(call.names(), result, expected, strict=True):
        assert torch.equal(ours, value), name


def test_a_gradient_that_is_expanded_or_absent(backend: Backend) -> None:
    call = make(Case(2, 20, 24, 2, 8, 8)).to(torch.float32, backend.device)
    o_left, _ = cross_attention(**call.inputs, backend=backend.name)
    gradients = torch.autograd.grad(o_left.sum(), call.leaves())
    ones, zeros = torch.ones_like(call.grads[0]), torch.zeros_like(call.grads[1])
    expected = Call(call.case, call.inputs, None, (ones, zeros)).run(backend.name)[2:]
    for ours, value in zip(gradients, expected, strict=True):
        assert torch.equal(ours, value)


@each(
    Case(2, 37, 53, 3, 5, 7, reach=3, max_lag=30),
    Case(1, 300, 520, 1, 24, 8),
    Case(2, 17, 31, 2, 16, 16, reach=3),
)
def test_reads_nothing_beside_its_inputs(backend: Backend, case: Case) -> None:
    call = make(case).to(torch.float32, backend.device)
    expected = call.run(backend.name)
    for name, tensor in call.inputs.items():
        # NaN before and after each row of channels, each time step and each problem
        wide = torch.full([size + 2 for size in tensor.shape], torch.nan, device=tensor.device)
        inner = wide[1:-1, 1:-1, 1:-1, 1:-1]
        inner.copy_(tensor.detach())
        call.inputs[name] = inner.requires_grad_()
    for name, ours, value in zip(call.names(), call.run(backend.name), expected, strict=True):
        assert torch.equal(ours, value), name


@each(
    Case(2, 37, 53, 3, 5, 7, reach=3),
    Case(2, 20, 90, 2, 16, 8, max_lag=10, reach=10),
    Case(2, 90, 20, 2, 16, 8, max_lag=10),
    Case(1, 300, 520, 1, 24, 40, reach=1),
    Case(2, 31, 17, 2, 16, 16, reach=1),
)
def test_every_output_is_written(backend: Backend, case: Case) -> None:
    call = make(case).to(torch.float32, backend.device)
    torch.use_deterministic_algorithms(True)  # empty memory of PyTorch is then NaN, if asked
    try:
        torch.utils.deterministic.fill_uninitialized_memory = False
        expected = call.run(backend.name)
        torch.utils.deterministic.fill_uninitialized_memory = True
        poisoned = call.run(backend.name)
    finally:
        torch.use_deterministic_algorithms(False)
    for name, ours, value in zip(call.names(), poisoned, expected, strict=True):
        assert torch.equal(ours, value), name
        assert torch.isfinite(ours).all(), name


def test_a_query_without_a_partner_gets_zeros(backend: Backend) -> None:
    case = Case(2, 20, 90, 2, 16, 8, max_lag=10, reach=10)
    call = make(case).to(torch.float32, backend.device)
    _, o_right, _, dq_right, _, dv_right, _ = call.run(backend.name)
    for alone in (o_right[:, 30:], dq_right[:, 30:], dv_right[:, 30:]):
        assert torch.equal(alone, torch.zeros_like(alone))


@each(Case(2, 40, 24, 2, 8, 8, reach=3), Case(1, 140, 30, 2, 8, 8, reach=3))
def test_a_bias_of_minus_infinity_removes_pairs(backend: Backend, case: Case) -> None:
    call = make(case)
    with torch.no_grad():
        call.lag_bias[0] = float("-inf")  # leaves the lags beyond it
        call.lag_bias[1, 2] = float("-inf")
    check(backend, call, torch.float32, 1e-5)


def test_a_bias_of_minus_infinity_everywhere_gives_zeros(backend: Backend) -> None:
    call = make(Case(2, 9, 7, 2, 8, 8, reach=8)).to(torch.float32, backend.device)
    with torch.no_grad():
        call.lag_bias.fill_(float("-inf"))
    for name, ours, defining in zip(call.names(), call.run(backend.name), defined(call), strict=True):
        for result in (ours, defining):
            assert torch.equal(result, torch.zeros_like(result)), name


def test_a_limit_longer_than_any_sequence_is_none(backend: Backend) -> None:
    call = make(Case(1, 9, 7, 1, 8, 8)).to(torch.float32, backend.device)
    far = Call(replace(call.case, max_lag=2**70), call.inputs, None, call.grads)
    for ours, value in zip(far.run(backend.name), call.run(backend.name), strict=True):
        assert torch.equal(ours, value)


@each(Case(4, 64, 64, 2, 16, 16, reach=9), Case(1, 600, 520, 1, 16, 16, reach=9))
def test_two_runs_give_the_same_bits(backend: Backend, case: Case) -> None:
    call = make(case).to(torch.float32, backend.device)
    for name, one, two in zip(call.names(), call.run(backend.name), call.run(backend.name), strict=True):
        assert torch.equal(one, two), name


@pytest.mark.parametrize("shape", [(0, 5, 6), (2, 0, 6), (2, 5, 0), (0, 0, 0)])
@pytest.mark.parametrize("separate", [False, True])
def test_nothing_to_match(backend: Backend, shape: tuple[int, int, int], separate: bool) -> None:
    r, n, m = shape
    call = make(Case(r, n, m, 2, 4, 3, separate, reach=2)).to(torch.float32, backend.device)
    o_left, o_right, *gradients = call.run(backend.name)
    assert o_left.shape == (r, n, 2, 3)
    assert o_right.shape == (r, m, 2, 3)
    for result in (o_left, o_right, *gradients):
        assert torch.equal(result, torch.zeros_like(result))


def test_only_the_gradients_that_are_wanted(backend: Backend) -> None:
    call = make(Case(2, 20, 24, 2, 8, 8, reach=2)).to(torch.float32, backend.device)
    expected = dict(zip(call.names(), call.run(backend.name), strict=True))
    call.inputs = {name: t.detach().requires_grad_(name == "v_left") for name, t in call.inputs.items()}
    bias = call.lag_bias.detach() if call.lag_bias is not None else None
    outputs = cross_attention(**call.inputs, lag_bias=bias, backend=backend.name)
    torch.autograd.backward(outputs, call.grads)
    assert torch.equal(call.inputs["v_left"].grad, expected["d v_left"])
    assert all(t.grad is None for name, t in call.inputs.items() if name != "v_left")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_is_followed(backend: Backend, dtype: torch.dtype) -> None:
    call = make(Case(1, 20, 24, 2, 8, 8, reach=2)).to(torch.float32, backend.device)
    low = call.to(dtype, backend.device)
    with torch.autocast(backend.device, dtype=dtype):
        results = call.run(backend.name)
    assert results[0].dtype == results[1].dtype == dtype
    assert all(g.dtype == torch.float32 for g in results[2:])
    for name, ours, value in zip(call.names(), results, low.run(backend.name), strict=True):
        assert torch.equal(ours.to(value.dtype), value), name


@pytest.mark.parametrize("case", Case(2, 12, 15, 2, 4, 3, reach=2).both(), ids=str)
@pytest.mark.parametrize("permuted", [False, True])
def test_opcheck(backend: Backend, case: Case, permuted: bool) -> None:
    from binaural.kernels.cross_attention.operator import _BACKWARD, _FORWARD

    call = make(case).to(torch.float32, backend.device)
    inputs = {name: call.inputs[name].detach() if name in call.inputs else None for name in NAMES}
    if permuted:
        inputs = {
            name: None if t is None else t.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
            for name, t in inputs.items()
        }
    assert call.lag_bias is not None
    bias = call.lag_bias.detach()
    tests = ("test_schema", "test_faketensor")
    forward = _FORWARD[backend.name].overload
    arguments = (*inputs.values(), bias, 0.5, 9)
    torch.library.opcheck(forward, arguments, test_utils=tests)
    backward = _BACKWARD[backend.name].overload
    torch.library.opcheck(
        backward, (*call.grads, *inputs.values(), bias, *forward(*arguments), 0.5, 9), test_utils=tests
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", Case(2, 20, 24, 2, 8, 8, reach=3, max_lag=12).both(), ids=str)
def test_compiles_as_one_graph(backend: Backend, case: Case) -> None:
    call = make(case).to(torch.float32, backend.device)
    expected = call.run(backend.name)

    @torch.compile(fullgraph=True)
    def doubled(inputs: dict[str, Tensor], bias: Tensor) -> tuple[Tensor, Tensor]:
        twice = {name: 2 * (t / 2) for name, t in inputs.items()}
        o_left, o_right = cross_attention(**twice, lag_bias=bias, max_lag=case.max_lag, backend=backend.name)
        return o_left * 1.0, o_right * 1.0

    assert call.lag_bias is not None
    outputs = doubled(call.inputs, call.lag_bias)
    results = [*outputs, *torch.autograd.grad(outputs, call.leaves(), call.grads)]
    for name, ours, value in zip(call.names(), results, expected, strict=True):
        assert torch.equal(ours, value), name


def test_a_second_order_gradient_raises(backend: Backend) -> None:
    call = make(Case(1, 6, 5, 1, 4, 4)).to(torch.float32, backend.device)
    o_left, _ = cross_attention(**call.inputs, backend=backend.name)
    (gradient,) = torch.autograd.grad(o_left.square().sum(), [call.inputs["q_left"]], create_graph=True)
    with pytest.raises(RuntimeError, match="second-order gradients .* backend='reference'"):
        gradient.sum().backward()


def _arguments() -> dict[str, Any]:
    call = make(Case(2, 5, 6, 2, 4, 3))
    return {name: t.detach().float() for name, t in call.inputs.items()}


ZEROS = torch.zeros


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"q_left": [1.0]}, TypeError, "q_left must be a tensor, got list"),
        ({"v_right": 3}, TypeError, "v_right must be a tensor, got int"),
        (
            {"q_left": ZEROS(2, 5, 8)},
            ValueError,
            r"q_left must be \[R, time, heads, channels\], got .*\[2, 5, 8\]",
        ),
        (
            {"q_right": ZEROS(2, 6, 2, 5)},
            ValueError,
            r"q_right must have shape \[2, 6, 2, 4\].*\[2, 6, 2, 5\]",
        ),
        (
            {"q_right": ZEROS(3, 6, 2, 4)},
            ValueError,
            r"q_right must have shape \[2, 6, 2, 4\].*\[3, 6, 2, 4\]",
        ),
        ({"v_left": ZEROS(2, 4, 2, 3)}, ValueError, r"v_left must have shape \[2, 5, 2, 3\].*\[2, 4, 2, 3\]"),
        (
            {"v_right": ZEROS(2, 6, 2, 9)},
            ValueError,
            r"v_right must have shape \[2, 6, 2, 3\].*\[2, 6, 2, 9\]",
        ),
        (
            {"k_left": ZEROS(2, 5, 2, 4)},
            ValueError,
            "k_left and k_right must be given both .* k_right is None",
        ),
        (
            {"k_right": ZEROS(2, 6, 2, 4)},
            ValueError,
            "k_left and k_right must be given both .* k_left is None",
        ),
        (
            {"k_left": ZEROS(2, 5, 2, 4), "k_right": ZEROS(2, 5, 2, 4)},
            ValueError,
            r"k_right must have shape \[2, 6, 2, 4\]",
        ),
        (
            {"q_right": ZEROS(2, 6, 2, 4).double()},
            TypeError,
            "q_right must have q_left's dtype torch.float32, got",
        ),
        (
            {"v_left": ZEROS(2, 5, 2, 3, dtype=torch.int32)},
            TypeError,
            "v_left must be float32, .*got torch.int32",
        ),
        (
            {"v_left": ZEROS(2, 5, 2, 3, device="meta")},
            ValueError,
            "v_left must be on q_left's device cpu, got meta",
        ),
        (
            {"v_left": ZEROS(2, 5, 2, 0), "v_right": ZEROS(2, 6, 2, 0)},
            ValueError,
            "dv must be at least 1, got 0",
        ),
        ({"scale": float("nan")}, ValueError, "scale must be finite in float32, got nan"),
        ({"scale": 1e39}, ValueError, r"scale must be finite in float32, got 1e\+39"),
        ({"scale": "a"}, TypeError, "scale must be a number or None, got str"),
        ({"max_lag": -1}, ValueError, "max_lag must be a whole number .*got -1"),
        ({"max_lag": 1.5}, ValueError, "max_lag must be a whole number .*got 1.5"),
        (
            {"lag_bias": ZEROS(2, 4)},
            ValueError,
            r"lag_bias must be \[heads, 2 L \+ 1\] = \[2, .*got \[2, 4\]",
        ),
        (
            {"lag_bias": ZEROS(3, 5)},
            ValueError,
            r"lag_bias must be \[heads, 2 L \+ 1\] = \[2, .*got \[3, 5\]",
        ),
        ({"lag_bias": ZEROS(2, 5).long()}, TypeError, "lag_bias must be float32, .*got torch.int64"),
        ({"lag_bias": ZEROS(2, 5, device="meta")}, ValueError, "lag_bias must be on q_left's device cpu"),
        ({"lag_bias": [0.0]}, TypeError, "lag_bias must be a tensor, got list"),
        (
            {"backend": "gpu"},
            ValueError,
            "backend must be one of 'reference', 'cpp', 'triton', 'cuda' or None",
        ),
    ],
)
def test_bad_input_is_named(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        cross_attention(**(_arguments() | change))


def test_the_operators_check_what_they_are_given() -> None:
    Backend("cpp", "cpu").skip_unless_available("cross_attention")
    forward = torch.ops.binaural.cross_attention_forward
    a = _arguments()
    for change, message in [
        ({"q_left": ZEROS(5, 8)}, "must be .R, time, heads, channels."),
        ({"v_left": ZEROS(2, 4, 2, 3)}, "v_left must have q_left's rows and heads"),
        ({"q_right": a["q_right"].double()}, "q_right must have q_left's dtype"),
        ({name: t.int() for name, t in a.items()}, "takes float32"),
        ({name: t[:0] for name, t in a.items()}, "needs inputs that are not empty"),
    ]:
        given = a | change
        with pytest.raises(RuntimeError, match=message):
            forward(*(given[name] for name in NAMES[:4]), None, None, None, 0.5, None)
