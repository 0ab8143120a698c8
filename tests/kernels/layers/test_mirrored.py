"""The sum of both ears' maps and the weights of mirrored channels, against slices and flips written out."""

import pytest
import torch
from layer_cases import DTYPES, make_map

from binaural.kernels.layers import add_mirrored, mirror_weight, reference


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_add_mirrored(dtype):
    torch.manual_seed(0)
    for shape in ((2, 6, 5, 7), (4, 64, 3, 8), (6, 2, 1, 1), (2, 70, 2, 3)):
        both = make_map(*shape, dtype=dtype)
        batch, half = shape[0] // 2, shape[1] // 2
        gradient = torch.randn(batch, *shape[1:]).to(dtype)
        y = add_mirrored(both)
        assert "AddMirrored" in type(y.grad_fn).__name__
        assert y.is_contiguous(memory_format=torch.channels_last)
        left, right = both[:batch], both[batch:]
        expected = torch.empty(batch, *shape[1:], dtype=dtype)
        expected[:, :half] = left[:, :half] + right[:, half:]
        expected[:, half:] = (right[:, :half] + left[:, half:]).flip(3)
        torch.testing.assert_close(y, expected, rtol=0, atol=0)
        for given in (gradient, gradient.permute(1, 0, 2, 3).contiguous().permute(1, 0, 2, 3)):
            ours, exact = (torch.autograd.grad(t, both, given, retain_graph=True)[0] for t in (y, expected))
            torch.testing.assert_close(ours, exact, rtol=0, atol=0)


def test_the_reference_of_add_mirrored():
    both = torch.randn(4, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(add_mirrored, both)
    in_kernels = both.detach().float().to(memory_format=torch.channels_last)
    torch.testing.assert_close(add_mirrored(both).float(), add_mirrored(in_kernels))


def test_add_mirrored_needs_even_sizes():
    for shape in ((3, 4, 3, 3), (2, 3, 3, 3), (2, 4, 3)):
        with pytest.raises(ValueError, match="an even C, got"):
            add_mirrored(torch.zeros(shape))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_mirror_weight(dtype):
    torch.manual_seed(0)
    for parts, kernel in (([4], (3, 3)), ([6, 2], (3, 3)), ([34, 50], (3, 5)), ([2], (1, 1))):
        weight = make_map(5, sum(parts), *kernel)
        gradient = torch.randn(10, sum(parts), *kernel).to(dtype)
        both = mirror_weight(weight, parts, dtype)
        assert "MirrorWeight" in type(both.grad_fn).__name__
        assert both.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(both, reference.mirror_weight(weight, parts, dtype), rtol=0, atol=0)
        (of_weight,) = torch.autograd.grad(both, weight, gradient)
        exact = reference.mirror_weight(weight.double(), parts, torch.float64)
        (expected,) = torch.autograd.grad(exact, weight, gradient.double())
        assert of_weight.dtype == torch.float32
        torch.testing.assert_close(of_weight, expected, rtol=0, atol=2e-6)


def test_the_reference_of_mirror_weight():
    """Also for three parts, which the kernels do not cover."""
    parts, begin = [2, 4, 6], 0
    weight = make_map(3, 12, 3, 3)
    both = mirror_weight(weight, parts, weight.dtype)
    assert "MirrorWeight" not in type(both.grad_fn).__name__
    for part in parts:
        own, other = weight[:, begin : begin + part].chunk(2, dim=1)
        mirrored = torch.cat([other, own], dim=1).flip(-1)
        torch.testing.assert_close(both[3:, begin : begin + part], mirrored, rtol=0, atol=0)
        begin += part
    torch.testing.assert_close(both[:3], weight, rtol=0, atol=0)


def test_mirror_weight_needs_parts_that_fit():
    for parts in ([3, 5], [4, 2], [8, 0]):
        with pytest.raises(ValueError, match=r"parts must be even and sum to weight's C_in = 8, got \["):
            mirror_weight(torch.ones(2, 8, 3, 3), parts, torch.float32)
