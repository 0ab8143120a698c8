"""Which implementation of a fused layer runs, and what all their operators have in common."""

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from layer_cases import make_map
from torch import Tensor

from binaural.kernels import use_backend
from binaural.kernels.dispatch.backends import OPERATIONS, WHY_UNAVAILABLE
from binaural.kernels.layers import (
    add_mirrored,
    batch_norm_relu,
    conv3x3,
    upsample_concat,
)

CONV3X3 = sys.modules[conv3x3.__module__]

# For each layer, a call with a map [2, 16, 8, 8] and weights in the map's dtype.
CALLS: dict[str, Callable[[Tensor], Tensor]] = {
    "add_mirrored": add_mirrored,
    "batch_norm_relu": lambda x: batch_norm_relu(x, *numbers(x, 4), training=True)[0],
    "conv3x3": lambda x: conv3x3(x, weights_from(x)),
    "upsample_concat": lambda x: upsample_concat(x, 2 * x),
}


def numbers(x: Tensor, count: int) -> list[Tensor]:
    """One value per channel, `count` times; float32 for bfloat16 maps, as under autocast."""
    return [torch.ones(16, dtype=torch.promote_types(x.dtype, torch.float32)) for _ in range(count)]


def weights_from(x: Tensor) -> Tensor:
    """Channels-last weights [4, 16, 3, 3] that require a gradient."""
    return x.permute(0, 2, 3, 1).reshape(-1)[: 4 * 9 * 16].view(4, 3, 3, 16).permute(0, 3, 1, 2)


@pytest.fixture(params=CALLS)
def layer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A layer, with the kernel of `conv3x3` in use on every processor."""
    monkeypatch.setattr(CONV3X3, "PYTORCH_IS_SLOW", True)
    torch.manual_seed(0)
    return request.param


def is_fused(y: Tensor) -> bool:
    """Whether a function of this project made the tensor, and not one of PyTorch."""
    return type(y.grad_fn).__module__ != "torch" and hasattr(type(y.grad_fn), "_forward_cls")


def test_all_layers_are_listed() -> None:
    assert {name for name, backends in OPERATIONS.items() if "triton" not in backends} == set(CALLS)


@pytest.mark.parametrize("backend", [None, "cpp", "triton", "cuda"])
def test_the_cpp_kernels_run(layer: str, backend: str | None) -> None:
    """Also where a backend is requested that has no kernels of the layer."""
    x = make_map(2, 16, 8, 8)
    if backend is None:
        y = CALLS[layer](x)
    else:
        with use_backend(backend):
            y = CALLS[layer](x)
    assert is_fused(y)


def test_the_reference_runs_on_request(layer: str) -> None:
    with use_backend("reference"):
        assert not is_fused(CALLS[layer](make_map(2, 16, 8, 8)))


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("float64", "take float32.*, and this tensor is float64"),
        ("layout", "channels-last memory"),
    ],
)
def test_a_call_that_is_not_covered(layer: str, case: str, reason: str) -> None:
    """PyTorch's operators run it, and a request for the kernels is an error."""
    x = make_map(2, 16, 8, 8, dtype=torch.float64 if case == "float64" else torch.float32)
    if case == "layout":
        x = x.detach().contiguous().requires_grad_()
    for backend in (None, "triton"):
        if backend is None:
            assert not is_fused(CALLS[layer](x))
        else:
            with use_backend(backend):
                assert not is_fused(CALLS[layer](x))
    with (
        use_backend("cpp"),
        pytest.raises(ValueError, match=f"backend 'cpp' cannot run {layer} here: .*{reason}"),
    ):
        CALLS[layer](x)


def test_weights_and_skips_that_are_not_covered() -> None:
    x, skip = make_map(2, 16, 8, 8), make_map(2, 16, 8, 8, dtype=torch.bfloat16)
    low = [torch.ones(16, dtype=torch.bfloat16) for _ in range(4)]
    calls = {
        "take weights of float32": lambda: batch_norm_relu(skip, *low, training=True)[0],
        "tensors of one dtype": lambda: upsample_concat(skip, x),
    }
    for reason, call in calls.items():
        assert not is_fused(call())
        with use_backend("cpp"), pytest.raises(ValueError, match=f"cannot run .* here: .*{reason}"):
            call()


def test_batch_norm_without_training_is_pytorchs_on_every_backend() -> None:
    x = make_map(2, 16, 8, 8)
    for backend in ("reference", "cpp", "triton"):
        with use_backend(backend):
            assert not is_fused(batch_norm_relu(x, *numbers(x, 4), training=False)[0])


def test_without_the_extension(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WHY_UNAVAILABLE, ("cpp", layer), "the extension is not built")
    x = make_map(2, 16, 8, 8)
    assert not is_fused(CALLS[layer](x))
    with (
        use_backend("cpp"),
        pytest.raises(ValueError, match=f"cannot run {layer} here: the extension"),
    ):
        CALLS[layer](x)


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiled_calls_choose_without_a_graph_break(monkeypatch: pytest.MonkeyPatch, dynamic: bool) -> None:
    monkeypatch.setattr(CONV3X3, "PYTORCH_IS_SLOW", True)
    torch._dynamo.reset()

    def call_all(x: Tensor) -> list[Tensor]:
        return [call(x) for call in CALLS.values()]

    compiled = torch.compile(call_all, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    for x in (make_map(2, 16, 8, 8), make_map(2, 16, 8, 8).detach().contiguous().requires_grad_()):
        torch.testing.assert_close(compiled(x), call_all(x))


def test_second_order_gradients_raise(layer: str) -> None:
    x = make_map(2, 16, 8, 8)
    (gradient,) = torch.autograd.grad(CALLS[layer](x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()


def test_operators_raise_for_empty_maps() -> None:
    ops, empty = torch.ops.binaural, torch.empty(2, 3, 4, 0).permute(0, 3, 1, 2)
    weight = torch.empty(0)
    for call in (
        lambda: ops.add_mirrored_forward(empty),
        lambda: ops.batch_norm_relu_forward(empty, weight, weight, 1e-5, False, True),
        lambda: ops.conv_weight_gradient(empty, empty),
    ):
        with pytest.raises(RuntimeError, match="not empty"):
            call()


@pytest.mark.parametrize(("shape", "norms"), [((2, 6, 7, 9), 6), ((2, 16, 8, 8), 8)])
def test_operators_pass_opcheck(shape: tuple[int, int, int, int], norms: int) -> None:
    batch, channels, height, width = shape
    x = make_map(*shape).detach()
    per_norm = [torch.rand(norms) for _ in range(4)]
    ops, opcheck = torch.ops.binaural, torch.library.opcheck
    for pool, keep in ((False, True), (True, True), (True, False)):
        opcheck(ops.batch_norm_relu_forward, (x, *per_norm[:2], 1e-5, pool, keep))
    pooled = make_map(batch, channels, height // 2, width // 2).detach()
    opcheck(ops.batch_norm_relu_backward, (x[:], pooled, x, *per_norm, 1e-5))
    opcheck(ops.upsample_concat_forward, (x, pooled))
    opcheck(ops.upsample_concat_forward, (x[:, :0], pooled))
    opcheck(ops.upsample_concat_backward, (x[:, 2:], 3, 4))
    opcheck(ops.add_mirrored_forward, (x,))
    opcheck(ops.add_mirrored_backward, (x,))
    opcheck(ops.conv_weight_gradient, (x, make_map(batch, 32, height, width).detach()))
