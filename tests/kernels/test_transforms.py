"""The operations inside torch.func transforms, forward-mode AD and tracing, and with NumPy numbers."""

import numpy as np
import pytest
import torch
from torch import Tensor, func
from torch.autograd import forward_ad

from binaural.kernels import cross_attention, edge_aware_loss, packed_cross_attention, use_backend
from binaural.kernels.dispatch import extension
from binaural.kernels.layers import add_mirrored, batch_norm_relu, conv3x3, upsample_concat

built = pytest.mark.skipif(extension.WHY_NOT_LOADED is not None, reason="the extension is not built")


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float() + 0.1


def channels_last(*shape: int) -> Tensor:
    return rand(*shape).to(memory_format=torch.channels_last)


def norm(x: Tensor) -> Tensor:
    ones, zeros = torch.ones(x.shape[1]), torch.zeros(x.shape[1])
    return batch_norm_relu(x, ones, zeros, zeros.clone(), ones.clone(), training=True)[0]


Q = [rand(2, 5, 2, 4).roll(shift) for shift in (1, 2, 3)]
BIAS, TARGET = rand(2, 3), 2 * rand(2, 7, 6) + 0.1
WEIGHT, SKIP = channels_last(16, 16, 3, 3), channels_last(2, 3, 8, 8)
OPERATIONS = {
    "cross_attention": (lambda q: cross_attention(q, *Q, lag_bias=BIAS)[0], rand(2, 5, 2, 4)),
    "packed_cross_attention": (lambda packed: packed_cross_attention(packed, 2, 8, 8), rand(4, 5, 16)),
    "edge_aware_loss": (lambda pred: edge_aware_loss(pred, TARGET)[0], 3 * rand(2, 6, 7).mT),
    "batch_norm_relu": (norm, channels_last(3, 16, 8, 8)),
    "conv3x3": (lambda x: conv3x3(x, WEIGHT), channels_last(2, 16, 8, 8)),
    "add_mirrored": (add_mirrored, channels_last(4, 8, 5, 6)),
    "upsample_concat": (lambda below: upsample_concat(SKIP, below), channels_last(2, 5, 4, 4)),
}
every_operation = pytest.mark.parametrize(("operation", "x"), OPERATIONS.values(), ids=OPERATIONS)


@every_operation
def test_forward_mode_gives_the_tangent(operation, x):
    """The derivative along a direction, which reverse mode gives through the kernels, too."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    weight = torch.randn(operation(x).shape, generator=torch.Generator().manual_seed(2))
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (gradient,) = torch.autograd.grad((operation(leaf) * weight).sum(), leaf)
    expected = (gradient * direction).sum()

    tangent = func.jvp(operation, (x,), (direction,))[1]
    torch.testing.assert_close((tangent * weight).sum(), expected, rtol=1e-3, atol=1e-4)
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(operation(forward_ad.make_dual(x, direction))).tangent
    torch.testing.assert_close((tangent * weight).sum(), expected, rtol=1e-3, atol=1e-4)


@every_operation
def test_func_grad_and_vjp_give_the_kernels_gradient(operation, x):
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    (expected,) = torch.autograd.grad(operation(leaf).square().sum(), leaf)
    torch.testing.assert_close(
        func.grad(lambda x: operation(x).square().sum())(x), expected, rtol=1e-3, atol=1e-4
    )
    y, vjp = func.vjp(operation, x)
    torch.testing.assert_close(vjp(2 * y)[0], expected, rtol=1e-3, atol=1e-4)


VMAPPED = ("cross_attention", "packed_cross_attention", "edge_aware_loss", "add_mirrored")


@pytest.mark.parametrize("name", VMAPPED)
def test_vmap_is_a_loop(name):
    operation, x = OPERATIONS[name]
    batch = torch.stack([x, 2 * x, 3 * x])
    torch.testing.assert_close(func.vmap(operation)(batch), torch.stack([operation(x) for x in batch]))

    def gradient(x: Tensor) -> Tensor:
        return func.grad(lambda x: operation(x).square().sum())(x)

    torch.testing.assert_close(func.vmap(gradient)(batch), torch.stack([gradient(x) for x in batch]))


@built
def test_a_backend_asked_for_by_name_refuses_transforms():
    q = [rand(2, 5, 2, 4) for _ in range(4)]
    message = "backend 'cpp' cannot run cross_attention here: torch.func transforms .* backend='reference'"
    with pytest.raises(ValueError, match=message):
        func.jvp(lambda a: cross_attention(a, *q[1:], backend="cpp")[0], (q[0],), (q[0],))
    with pytest.raises(ValueError, match=message), use_backend("cpp"), forward_ad.dual_level():
        cross_attention(*q)


@built
def test_a_tangent_of_a_gradient_raises():
    """The forward pass ran on a kernel, outside forward-mode AD."""
    q = [rand(2, 5, 2, 4).requires_grad_() for _ in range(4)]
    output = cross_attention(*q)[0]
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.ones_like(output), torch.ones_like(output))
        with pytest.raises(RuntimeError, match="has no forward-mode derivative.*backend='reference'"):
            torch.autograd.grad(output, q, dual)


def test_batched_gradients_are_a_loop():
    q = [rand(2, 3, 2, 4).requires_grad_() for _ in range(4)]
    output = cross_attention(*q)[0]
    rows = torch.eye(output.numel())[:5].view(5, *output.shape)
    batched = torch.autograd.grad(output, q[0], rows, is_grads_batched=True, retain_graph=True)[0]
    single = [torch.autograd.grad(output, q[0], row, retain_graph=True)[0] for row in rows]
    torch.testing.assert_close(batched, torch.stack(single))


def test_compiled_once_and_then_transformed():
    """torch.compile notices that a transform is active."""
    q = [rand(2, 5, 2, 4) for _ in range(4)]
    compiled = torch.compile(lambda a: cross_attention(a, *q[1:])[0], fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(q[0]), cross_attention(*q)[0])
    tangent = torch.compile(
        lambda a: func.jvp(lambda a: cross_attention(a, *q[1:])[0], (a,), (a,))[1], backend="eager"
    )(q[0])
    torch.testing.assert_close(
        tangent, func.jvp(lambda a: cross_attention(a, *q[1:])[0], (q[0],), (q[0],))[1]
    )


@pytest.mark.filterwarnings("ignore")
def test_traced_by_torchscript():
    q = [rand(2, 5, 2, 4).requires_grad_() for _ in range(4)]
    traced = torch.jit.trace(lambda *q: cross_attention(*q), q)
    torch.testing.assert_close(traced(*q), cross_attention(*q))
    graph = str(traced.graph)
    assert "binaural::" not in graph
    assert "^_" not in graph  # the name of a Function of Python


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_meta_tensors_under_autocast(device):
    with torch.device("meta"), torch.autocast(device, torch.bfloat16):
        o_left, o_right = cross_attention(*(torch.empty(2, 5, 2, 4) for _ in range(4)))
        assert o_left.shape == o_right.shape == (2, 5, 2, 4)
        assert packed_cross_attention(torch.empty(4, 5, 16), 2, 8, 8).shape == (4, 5, 2, 4)
        assert edge_aware_loss(torch.empty(2, 8, 8), torch.empty(2, 8, 8))[0].shape == ()


def test_numbers_of_numpy():
    q = [rand(2, 5, 2, 4) for _ in range(4)]
    expected = cross_attention(*q, scale=0.5, max_lag=2)
    for scale, lag in (
        (np.float32(0.5), np.int64(2)),
        (np.float64(0.5), np.uint8(2)),
        (np.array(0.5), np.array(2)),
    ):
        torch.testing.assert_close(cross_attention(*q, scale=scale, max_lag=lag), expected, rtol=0, atol=0)
    packed = rand(4, 5, 16)
    torch.testing.assert_close(
        packed_cross_attention(packed, np.int64(2), np.int32(8), np.int64(8), scale=np.int64(1)),
        packed_cross_attention(packed, 2, 8, 8, scale=1),
    )
    pred, target = rand(2, 8, 8), 2 * rand(2, 8, 8)
    torch.testing.assert_close(
        edge_aware_loss(
            pred, target, lambda_recon=np.float32(0.5), lambda_edge=np.array(2), lambda_smooth=np.int8(1)
        ),
        edge_aware_loss(pred, target, lambda_recon=0.5, lambda_edge=2, lambda_smooth=1),
    )
    with pytest.raises(ValueError, match="max_lag must be a whole number"):
        cross_attention(*q, max_lag=np.float32(2))
    with pytest.raises(TypeError, match="scale must be a number or None, got ndarray"):
        cross_attention(*q, scale=np.ones(1))
