"""Cross-attention of both ears in one tensor against that of its parts."""

from typing import Any

import pytest
import torch
from backend import Backend
from torch import Tensor

from binaural.kernels import cross_attention, packed_cross_attention
from binaural.kernels.cross_attention import unpack

HEADS, D, DV = 2, 8, 5
SIZES = (HEADS, HEADS * D, HEADS * DV)
SHARED, SEPARATE = HEADS * (D + DV), HEADS * (2 * D + DV)
ROWS, TIME = 3, 20


@pytest.fixture(autouse=True)
def _available(request: pytest.FixtureRequest) -> None:
    if "backend" in request.fixturenames:
        request.getfixturevalue("backend").skip_unless_available("cross_attention")
    else:
        Backend("cpp", "cpu").skip_unless_available("cross_attention")


def make(
    channels: int, dtype: torch.dtype = torch.float32, device: str = "cpu", time: int = TIME
) -> tuple[Tensor, Tensor, Tensor]:
    """Packed ears, a lag bias, and the gradient of what is read."""
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(2 * ROWS, time, channels, generator=generator).to(device, dtype)
    bias = torch.randn(HEADS, 7, generator=generator)
    bias = bias.to(device, torch.promote_types(dtype, torch.float32))
    gradient = torch.randn(2 * ROWS, time, HEADS, DV, generator=generator).to(device, dtype)
    return packed.requires_grad_(), bias.requires_grad_(), gradient


def of_parts(packed: Tensor, **options: Any) -> Tensor:
    ears = [ear for part in unpack(packed, *SIZES) for ear in part.chunk(2)]
    return torch.cat(cross_attention(*ears, **options))


@pytest.mark.parametrize("channels", [SHARED, SEPARATE], ids=["shared", "separate"])
@pytest.mark.parametrize("time", [TIME, 300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64], ids=str)
def test_the_same_bits_as_of_the_parts(
    backend: Backend, channels: int, time: int, dtype: torch.dtype
) -> None:
    if dtype not in backend.dtypes:
        pytest.skip(f"{backend} does not take {dtype}")
    if time > TIME and backend.name != "cpp":
        pytest.skip("long problems are tested where packed ones have kernels of their own")
    packed, bias, gradient = make(channels, dtype, backend.device, time)
    options = {"max_lag": 9, "scale": 0.3, "backend": backend.name}
    o = packed_cross_attention(packed, *SIZES, lag_bias=bias, **options)
    expected = of_parts(packed, lag_bias=bias, **options)
    assert torch.equal(o, expected)
    results, wanted = (torch.autograd.grad(t, (packed, bias), gradient) for t in (o, expected))
    for ours, value in zip(results, wanted, strict=True):
        assert torch.equal(ours, value)


@pytest.mark.parametrize("channels", [SHARED, SEPARATE], ids=["shared", "separate"])
def test_without_a_bias_the_scale_is_that_of_the_channels(channels: int) -> None:
    packed, _, _ = make(channels)
    o = packed_cross_attention(packed, *SIZES)
    assert torch.equal(o, of_parts(packed, scale=D**-0.5))
    with torch.no_grad():
        assert torch.equal(packed_cross_attention(packed, *SIZES), o)


def test_any_strides_give_the_same_bits() -> None:
    packed, bias, gradient = make(SHARED)
    wide = torch.full((2 * ROWS, TIME, SHARED + 3), torch.nan)
    wide[..., 2:-1] = packed.detach()
    turned = packed.detach().permute(2, 0, 1).contiguous().permute(1, 2, 0)
    expected = packed_cross_attention(packed, *SIZES, lag_bias=bias)
    wanted = torch.autograd.grad(expected, packed, gradient)[0]
    turned_gradient = gradient.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    for strided in (wide[..., 2:-1], turned):
        strided.requires_grad_()
        o = packed_cross_attention(strided, *SIZES, lag_bias=bias)
        assert torch.equal(o, expected)
        assert torch.equal(torch.autograd.grad(o, strided, turned_gradient)[0], wanted)


@pytest.mark.parametrize("channels", [SHARED, SEPARATE], ids=["shared", "separate"])
def test_every_output_is_written(channels: int) -> None:
    packed, bias, gradient = make(channels)
    o = packed_cross_attention(packed, *SIZES, lag_bias=bias, max_lag=4)
    # Here the kernels' memory is NaN before they write it.
    for result in (o, *torch.autograd.grad(o, (packed, bias), gradient)):
        assert result.isfinite().all()


@pytest.mark.parametrize("channels", [SHARED, SEPARATE], ids=["shared", "separate"])
def test_gradcheck(channels: int) -> None:
    packed, bias, _ = make(channels, torch.float64, time=4)
    assert torch.autograd.gradcheck(
        lambda p, b: packed_cross_attention(p, *SIZES, lag_bias=b, max_lag=3), (packed, bias), fast_mode=True
    )


def test_autocast_is_followed() -> None:
    packed, bias, gradient = make(SHARED)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        o = packed_cross_attention(packed, *SIZES, lag_bias=bias)
    assert o.dtype == torch.bfloat16
    assert torch.autograd.grad(o, packed, gradient.bfloat16())[0].dtype == torch.float32


def test_an_absent_gradient_is_none() -> None:
    packed, bias, gradient = make(SHARED)
    o = packed_cross_attention(packed.detach(), *SIZES, lag_bias=bias)
    assert torch.autograd.grad(o, bias, gradient)[0].shape == bias.shape
    o = packed_cross_attention(packed, *SIZES, lag_bias=bias)
    assert torch.equal(o, packed_cross_attention(packed, *SIZES, lag_bias=bias.detach()))

    class NoGradient(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, _: Tensor) -> None:
            return None

    assert torch.autograd.grad(NoGradient.apply(o).sum(), (packed, bias), allow_unused=True) == (None, None)


@pytest.mark.parametrize("shape", [(0, TIME, SHARED), (4, 0, SHARED)])
def test_nothing_to_match(backend: Backend, shape: tuple[int, ...]) -> None:
    packed = torch.zeros(shape, device=backend.device, requires_grad=True)
    o = packed_cross_attention(packed, *SIZES, backend=backend.name)
    assert o.shape == (*shape[:2], HEADS, DV)
    assert torch.autograd.grad(o.sum(), packed)[0].shape == shape


@pytest.mark.parametrize("channels", [SHARED, SEPARATE], ids=["shared", "separate"])
def test_opcheck(channels: int) -> None:
    packed, bias, gradient = (t.detach() for t in make(channels))
    tests = ("test_schema", "test_faketensor")
    forward = torch.ops.binaural.cross_attention_packed_forward.default
    backward = torch.ops.binaural.cross_attention_packed_backward.default
    for lag_bias in (bias, bias.t().contiguous().t(), None):
        torch.library.opcheck(forward, (packed, *SIZES, lag_bias, 0.5, 9), test_utils=tests)
        saved = forward(packed, *SIZES, lag_bias, 0.5, 9)
        torch.library.opcheck(
            backward, (gradient, packed, *SIZES, lag_bias, *saved, 0.5, 9), test_utils=tests
        )


@pytest.mark.slow
def test_compiles_as_one_graph() -> None:
    packed, bias, gradient = make(SHARED)

    @torch.compile(fullgraph=True)
    def doubled(packed: Tensor, bias: Tensor) -> Tensor:
        return packed_cross_attention(2 * (packed / 2), *SIZES, lag_bias=bias, max_lag=9) * 1.0

    results, expected = (
        [o, *torch.autograd.grad(o, (packed, bias), gradient)]
        for o in (
            doubled(packed, bias),
            packed_cross_attention(packed, *SIZES, lag_bias=bias, max_lag=9),
        )
    )
    for ours, value in zip(results, expected, strict=True):
        assert torch.equal(ours, value)


def test_a_second_order_gradient_raises() -> None:
    packed, _, _ = make(SHARED)
    o = packed_cross_attention(packed, *SIZES)
    (gradient,) = torch.autograd.grad(o.square().sum(), packed, create_graph=True)
    with pytest.raises(RuntimeError, match="second-order gradients of the fused kernels do not exist"):
        gradient.sum().backward()


ZEROS = torch.zeros(2, 5, SHARED)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((None, *SIZES), TypeError, "packed must be a tensor, got NoneType"),
        ((ZEROS, 0, 16, 10), ValueError, "heads must be a whole number of at least 1"),
        ((ZEROS, 2, 15, 11), ValueError, "query_channels must be divisible by heads, got 15 and 2"),
        ((ZEROS, 2, 17.0, 10), ValueError, "query_channels must be a whole number .* got 17.0"),
        ((ZEROS[:1], *SIZES), ValueError, r"packed must be \[2 R, N, 26 or, with keys, 42\], got"),
        ((torch.zeros(2, 5, 28), *SIZES), ValueError, r"packed must be .* got \[2, 5, 28\]"),
        ((ZEROS[None], *SIZES), ValueError, r"packed must be \[2 R, N"),
        ((ZEROS.int(), *SIZES), TypeError, "packed must be float32, .* got torch.int32"),
    ],
)
def test_bad_input_is_named(arguments: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        packed_cross_attention(*arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": float("nan")}, "scale must be finite"),
        ({"max_lag": -1}, "max_lag must be a whole number of at least 0"),
        ({"lag_bias": torch.zeros(2, 4)}, r"lag_bias must be \[heads, 2 L \+ 1\]"),
        ({"backend": "fastest"}, "backend must be one of"),
    ],
)
def test_bad_options_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        packed_cross_attention(ZEROS, *SIZES, **options)


def test_the_operators_check_what_they_are_given() -> None:
    ops = torch.ops.binaural
    packed, _, gradient = (t.detach() for t in make(SHARED))
    for given, sizes in (
        (packed[:-1], SIZES),
        (packed[..., 1:], SIZES),
        (packed[0], SIZES),
        (packed, (0, 16, 10)),
        (packed, (3, 16, 10)),
        (packed, (1, 2**63 - 1, packed.shape[2] + 2)),  # adds up to the channels that there are
    ):
        with pytest.raises(RuntimeError, match="packed must"):
            ops.cross_attention_packed_forward(given, *sizes, None, 0.5, None)
    with pytest.raises(RuntimeError, match="needs inputs that are not empty"):
        ops.cross_attention_packed_forward(packed[:0], *SIZES, None, 0.5, None)
    o, lse = ops.cross_attention_packed_forward(packed, *SIZES, None, 0.5, None)
    for do, o_given, lse_given, message in (
        (gradient[1:], o, lse, "the gradient must be"),
        (gradient[..., 1:], o, lse, "the gradient must be"),
        (gradient[:, 1:], o, lse, "the gradient must be"),
        (gradient[:, :, 1:], o, lse, "the gradient must be"),
        (gradient.double(), o, lse, "the gradient must be"),
        (gradient, o[1:], lse, "o must be"),
        (gradient, o, lse[..., 1:], "lse must be what"),
        (gradient, o, lse[2:], "lse must be what"),
        (gradient, o, lse[:, 1:].contiguous(), "lse must be what"),
        (gradient, o, lse[..., 1:].contiguous(), "lse must be what"),
    ):
        with pytest.raises(RuntimeError, match=message):
            ops.cross_attention_packed_backward(do, packed, *SIZES, None, o_given, lse_given, 0.5, None)
