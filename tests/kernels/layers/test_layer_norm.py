"""Layer norm over the channels of each pixel against its definition in plain PyTorch."""

import pytest
import torch
from layer_cases import DTYPES, check, check_threads, make_map, make_slice, with_dtype

from binaural.kernels.layers import layer_norm, reference

SHAPES = ((2, 5, 7, 9), (3, 32, 8, 6), (1, 70, 4, 5), (40, 3, 2, 3), (1, 16, 1, 1))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients(dtype):
    torch.manual_seed(0)
    for shape in SHAPES:
        x = make_map(*shape, dtype=dtype, offset=3.0)
        weight, bias = (torch.randn(shape[1]).requires_grad_() for _ in range(2))
        gradient = make_slice(*shape)

        def run(function, x, weight, bias, gradient=gradient):
            y = function(x, weight, bias, 1e-5)
            return [y, *torch.autograd.grad(y, (x, weight, bias), gradient.to(y.dtype))]

        results = run(layer_norm, x, weight, bias)
        assert "LayerNorm" in type(layer_norm(x, weight, bias).grad_fn).__name__
        assert results[0].is_contiguous(memory_format=torch.channels_last)
        expected = run(reference.layer_norm, *with_dtype((x, weight, bias), torch.float64))
        check(results, expected, run(reference.layer_norm, x, weight, bias))


def test_the_definition():
    torch.manual_seed(0)
    x = make_map(2, 6, 3, 5, dtype=torch.float64)
    weight, bias = (torch.randn(6, dtype=torch.float64) for _ in range(2))
    pixels = x.permute(0, 2, 3, 1)
    deviation = pixels.var(-1, correction=0, keepdim=True).add(1e-5).sqrt()
    expected = (pixels - pixels.mean(-1, keepdim=True)) / deviation * weight + bias
    torch.testing.assert_close(layer_norm(x, weight, bias), expected.permute(0, 3, 1, 2))


def test_weights_with_gaps_in_memory():
    torch.manual_seed(0)
    x, gradient = make_map(2, 6, 3, 5), torch.randn(2, 6, 3, 5)
    weight, bias = torch.randn(2, 6, 2)[..., 0].requires_grad_()
    assert not weight.is_contiguous()
    results = []
    for numbers in ((weight, bias), (weight.contiguous(), bias.contiguous())):
        y = layer_norm(x, *numbers)
        assert "_LayerNorm" in type(y.grad_fn).__name__
        results.append([y, *torch.autograd.grad(y, (x, *numbers), gradient)])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_precision_where_the_mean_is_large():
    torch.manual_seed(0)
    x = make_map(2, 48, 3, 5, offset=1000.0).detach()
    expected = reference.layer_norm(x.double(), *(f(48).double() for f in (torch.ones, torch.zeros)), 1e-5)
    result = layer_norm(x, torch.ones(48), torch.zeros(48))
    assert (result - expected).norm() <= 1e-4 * expected.norm()


def test_the_same_bits_on_any_number_of_threads():
    torch.manual_seed(0)
    x = make_map(4, 32, 32, 32)
    weight, bias = (torch.ones(32, requires_grad=True) for _ in range(2))

    def run():
        y = layer_norm(x, weight, bias)
        return [y, *torch.autograd.grad((y * x).square().sum(), (x, weight, bias))]

    check_threads(run)


def test_sizes_that_do_not_fit_raise():
    with pytest.raises(ValueError, match=r"bias must be \[C\] = \[6\], got \[3\]"):
        layer_norm(make_map(2, 6, 3, 3), torch.ones(6), torch.ones(3))
