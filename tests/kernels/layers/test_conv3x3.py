"""The 3 × 3 convolution with the kernel for the gradient of its weights, against PyTorch's in float64."""

import sys

import pytest
import torch
import torch.nn.functional as F
from layer_cases import DTYPES, check_threads, make_map
from torch.utils.flop_counter import FlopCounterMode

from binaural.kernels.layers import conv3x3

MODULE = sys.modules[conv3x3.__module__]

# Batch, channels of the input and of the output, height and width.
SHAPES = ((2, 16, 5, 7, 9), (1, 48, 24, 40, 11), (3, 32, 16, 1, 5), (1, 16, 1, 6, 1), (1, 16, 17, 3, 300))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_the_gradient_of_the_weights(dtype):
    torch.manual_seed(0)
    for batch, inputs, outputs, height, width in SHAPES:
        x = make_map(batch, inputs, height, width, dtype=dtype).detach()
        dy = make_map(batch, outputs, height, width, dtype=dtype).detach()
        weight = torch.zeros(outputs, inputs, 3, 3, dtype=torch.float64, requires_grad=True)
        (exact,) = torch.autograd.grad(F.conv2d(x.double(), weight, padding=1), weight, dy.double())
        result = torch.ops.binaural.conv_weight_gradient(dy, x).permute(0, 3, 1, 2)
        assert result.dtype == torch.float32
        assert (result - exact).norm() < 1e-6 * exact.norm()


def test_the_gradient_is_the_same_bits_on_any_number_of_threads():
    x, dy = (make_map(2, channels, 20, 30).detach() for channels in (32, 50))
    check_threads(lambda: [torch.ops.binaural.conv_weight_gradient(dy, x)])


def test_the_operator_checks_its_arguments():
    x, dy = (make_map(2, 16, 6, 5).detach() for _ in range(2))
    run = torch.ops.binaural.conv_weight_gradient
    for other in (dy[:1], dy[..., 1:], dy[:, :, 1:]):
        with pytest.raises(RuntimeError, match="dy must"):
            run(other.contiguous(memory_format=torch.channels_last), x)
    with pytest.raises(RuntimeError, match="dy must"):
        run(dy.bfloat16(), x)
    with pytest.raises(RuntimeError, match="x must have a multiple of 16 channels, got 8"):
        run(dy, x[:, :8].contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("needs", ["both", "weight"])
def test_values_and_gradients(monkeypatch, needs):
    monkeypatch.setattr(MODULE, "PYTORCH_IS_SLOW", True)
    x = make_map(2, 32, 9, 8).requires_grad_(needs == "both")
    weight = make_map(24, 32, 3, 3)
    inputs = [x, weight] if needs == "both" else [weight]
    y = conv3x3(x, weight)
    assert "Conv3x3" in type(y.grad_fn).__name__
    dy = torch.randn_like(y, memory_format=torch.contiguous_format)
    ours = [y, *torch.autograd.grad(y, inputs, dy)]
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    for result, value in zip(ours, [exact, *torch.autograd.grad(exact, inputs, dy.double())], strict=True):
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert (result - value).norm() < 1e-6 * value.norm()


def test_it_counts_as_many_flops_as_pytorchs(monkeypatch):
    counts = []
    for slow in (False, True):
        monkeypatch.setattr(MODULE, "PYTORCH_IS_SLOW", slow)
        x, weight = make_map(2, 32, 9, 8), make_map(24, 32, 3, 3)
        with FlopCounterMode(display=False) as counter:
            conv3x3(x, weight).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize("case", ["fast PyTorch", "channels", "small", "autocast", "inference"])
def test_where_pytorchs_convolution_runs(monkeypatch, case):
    monkeypatch.setattr(MODULE, "PYTORCH_IS_SLOW", case != "fast PyTorch")
    channels, side = 20 if case == "channels" else 16, 7 if case == "small" else 8
    x, weight = make_map(2, channels, side, side), make_map(8, channels, 3, 3)
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        with torch.set_grad_enabled(case != "inference"):
            y = conv3x3(x, weight)
        assert torch.equal(y, F.conv2d(x, weight, padding=1))
    assert "Conv3x3" not in type(y.grad_fn).__name__
