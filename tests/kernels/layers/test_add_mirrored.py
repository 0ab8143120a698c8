"""The sum of both ears' maps against slices and flips written out."""

import pytest
import torch
from layer_cases import DTYPES, make_map

from binaural.kernels.layers import add_mirrored


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients(dtype):
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


def test_the_definition():
    both = torch.randn(4, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(add_mirrored, both)
    in_kernels = both.detach().float().to(memory_format=torch.channels_last)
    torch.testing.assert_close(add_mirrored(both).float(), add_mirrored(in_kernels))


def test_odd_sizes_raise():
    for shape in ((3, 4, 3, 3), (2, 3, 3, 3), (2, 4, 3)):
        with pytest.raises(ValueError, match="an even C, got"):
            add_mirrored(torch.zeros(shape))
