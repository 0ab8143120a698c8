"""Bilinear upsampling into a concatenation against its definition in plain PyTorch."""

import pytest
import torch
from layer_cases import DTYPES, check, make_map, with_dtype

from binaural.kernels import use_backend
from binaural.kernels.layers import reference, upsample_concat

# Of skip and below.
SHAPES = (
    ((2, 3, 8, 8), (2, 5, 4, 4)),
    ((1, 16, 9, 7), (1, 20, 4, 3)),
    ((1, 4, 5, 5), (1, 33, 1, 1)),
    ((1, 4, 3, 3), (1, 4, 6, 6)),
    ((2, 0, 8, 7), (2, 21, 4, 3)),
)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_gradients(dtype):
    torch.manual_seed(0)
    for skip, below in SHAPES:
        leaves = [make_map(*shape, dtype=dtype) for shape in (skip, below)]
        gradient = torch.randn(skip[0], skip[1] + below[1], *skip[2:]).to(memory_format=torch.channels_last)

        def run(function, *leaves, gradient=gradient):
            joined = function(*leaves)
            with_gradient = [leaf for leaf in leaves if leaf.numel() > 0]
            return [joined, *torch.autograd.grad(joined, with_gradient, gradient.to(joined.dtype))]

        results = run(upsample_concat, *leaves)
        assert "UpsampleConcat" in type(upsample_concat(*leaves).grad_fn).__name__
        expected = run(reference.upsample_concat, *with_dtype(leaves, torch.float64))
        check(results, expected, run(reference.upsample_concat, *leaves))


@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_maps_of_different_batches_raise(backend):
    below = torch.randn(2, 4, 4, 4).to(memory_format=torch.channels_last)
    for channels in (0, 3):
        with use_backend(backend), pytest.raises(ValueError, match="must be of the same batch"):
            upsample_concat(torch.empty(3, channels, 8, 8), below)


def test_compiled_upsampling_is_interpolation():
    torch.manual_seed(0)
    for below in ((2, 5, 4, 6), (1, 3, 1, 1), (1, 2, 1, 5)):
        torch._dynamo.reset()
        skip = (below[0], 3, 2 * below[2], 2 * below[3])
        leaves = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in (skip, below)]
        graphs = []

        def keep(graph, _, graphs=graphs):
            graphs.append(graph)
            return graph

        compiled = torch.compile(reference.upsample_concat, backend=keep, fullgraph=True)
        joined, expected = compiled(*leaves), reference.upsample_concat(*leaves)
        torch.testing.assert_close(joined, expected, rtol=1e-12, atol=1e-12)
        gradient = torch.randn_like(expected)
        results, wanted = (torch.autograd.grad(y, leaves, gradient) for y in (joined, expected))
        torch.testing.assert_close(results, wanted, rtol=1e-12, atol=1e-12)
        assert "interpolate" not in graphs[0].code
