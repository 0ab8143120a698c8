"""The layers between convolutions against their definitions in plain PyTorch."""

import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from binaural.kernels import use_backend
from binaural.kernels.layers import (
    add_mirrored,
    average_pool,
    batch_norm_relu,
    conv3x3,
    layer_norm,
    mirror_weight,
    reference,
    stem,
    upsample_concat,
)

DTYPES = (torch.float32, torch.bfloat16)
CONV3X3 = sys.modules[conv3x3.__module__]


def make_map(*shape, dtype, offset=0.0):
    values = torch.randn(shape) * 2 + offset
    return values.to(dtype).to(memory_format=torch.channels_last).requires_grad_()


def with_dtype(tensors, dtype):
    return [tensor.detach().to(dtype).requires_grad_() for tensor in tensors]


def check(results, expected, plain):
    """The kernel errs no more than twice as much as PyTorch in the same dtype, plus rounding."""
    for result, exact, low in zip(results, expected, plain, strict=True):
        assert result.dtype == low.dtype
        error, allowed = ((t.double() - exact).norm() for t in (result, low))
        rounding = 2 * torch.finfo(result.dtype).eps * exact.norm()
        assert error <= 2 * allowed + rounding


def check_threads(run):
    """What `run` returns is the same bits on any number of threads."""
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append(run())
    finally:
        torch.set_num_threads(threads)
    for others in results[1:]:
        assert all(one.equal(other) for one, other in zip(results[0], others, strict=True))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize(
    ("shape", "norms"),
    [
        ((2, 5, 7, 9), 5),
        ((2, 32, 8, 6), 32),
        ((1, 70, 4, 5), 70),
        ((3, 16, 2, 2), 16),
        ((40, 3, 2, 3), 3),
        ((2, 16, 5, 3), 8),
        ((1, 36, 4, 4), 12),
        ((1, 6, 1, 1), 3),
    ],
)
def test_batch_norm_relu(shape, norms, pool, dtype):
    """Values, running statistics and gradients: both outputs are used, one of them, or one is not kept."""
    if pool and shape[2] < 2:
        pytest.skip("nothing to pool")
    torch.manual_seed(0)
    x = make_map(*shape, dtype=dtype, offset=3.0)
    weight, bias = (torch.randn(norms).requires_grad_() for _ in range(2))
    with torch.no_grad():  # two that are the same everywhere, one of them at the ReLU's edge
        weight[:2], bias[:2] = 0, torch.tensor([1.0, 0.0])
    gradient = torch.randn(shape)
    pooled_gradient = torch.randn(*shape[:2], shape[2] // 2, shape[3] // 2)

    def run(function, x, weight, bias, read, keep):
        running = [torch.zeros(norms, dtype=weight.dtype), torch.ones(norms, dtype=weight.dtype)]
        y, pooled = function(
            x, weight, bias, *running, training=True, momentum=0.1, eps=1e-5, pool=pool, keep=keep
        )
        assert y.shape == (shape if keep else (shape[0], 0, *shape[2:]))
        assert y.requires_grad == keep
        loss = (y * gradient).sum() if read else 0.0
        if pool:
            loss = loss + (pooled * pooled_gradient).sum()
        gradients = torch.autograd.grad(loss, (x, weight, bias))
        return [*([y] if keep else []), *([pooled] if pool else []), *running, *gradients]

    for read, keep in ((True, True), (False, True), (False, False)) if pool else ((True, True),):
        results = run(batch_norm_relu, x, weight, bias, read, keep)
        assert results[0].is_contiguous(memory_format=torch.channels_last)
        assert "BatchNormReLU" in type(results[0].grad_fn).__name__
        expected = run(reference.batch_norm_relu, *with_dtype((x, weight, bias), torch.float64), read, keep)
        plain = run(reference.batch_norm_relu, x, weight, bias, read, keep)
        if dtype == torch.float32:
            check(results, expected, plain)
        else:
            # Which pixel is the largest, and which is above 0, may hang on a rounding.
            for result, exact in zip(results, expected, strict=True):
                assert (result.double() - exact).norm() <= 0.05 * exact.norm()


def test_shared_norms_are_a_batch_norm_over_the_channels_that_share_them():
    """Channels 0 and 3, 1 and 4, 2 and 5 of six: against one map after the other in one batch."""
    torch.manual_seed(0)
    x = make_map(2, 6, 4, 5, dtype=torch.float32)
    norm = torch.nn.BatchNorm2d(3)
    y, _ = batch_norm_relu(
        x, norm.weight, norm.bias, torch.zeros(3), torch.ones(3), training=True, momentum=0.1
    )
    torch.testing.assert_close(torch.cat(y.chunk(2, dim=1)), norm(torch.cat(x.chunk(2, dim=1))).relu())


def test_channels_that_the_norms_do_not_divide_are_refused():
    x = make_map(2, 5, 4, 4, dtype=torch.float32)
    with pytest.raises(ValueError, match="weight must be .* C = 5, got 3"):
        batch_norm_relu(x, *(torch.ones(3) for _ in range(4)), training=True)
    for index, name in enumerate(("bias", "running_mean", "running_var"), 1):
        sizes = [5 if i == index else 1 for i in range(4)]
        with pytest.raises(ValueError, match=rf"{name} must have weight's shape \[1\], got \[5\]"):
            batch_norm_relu(x, *(torch.ones(size) for size in sizes), training=True)


def test_nothing_is_computed_for_nobody():
    x, numbers = make_map(2, 4, 4, 4, dtype=torch.float32).detach(), [torch.ones(4) for _ in range(4)]
    with pytest.raises(ValueError, match="without keep needs pool"):
        batch_norm_relu(x, *numbers, training=True, keep=False)
    with pytest.raises(RuntimeError, match="y or the pooled map must be wanted"):
        torch.ops.binaural.batch_norm_relu_forward(x, *numbers[:2], 1e-5, False, False)


def test_batch_norm_relu_takes_a_slice_of_the_channels_as_gradient():
    torch.manual_seed(0)
    x = make_map(2, 6, 4, 4, dtype=torch.float32)
    arguments = (torch.ones(6), torch.zeros(6), torch.zeros(6), torch.ones(6))
    gradient = torch.randn(2, 10, 4, 4).to(memory_format=torch.channels_last)[:, 2:8]
    grads = []
    for g in (gradient, gradient.contiguous()):
        y, _ = batch_norm_relu(x, *arguments, training=True)
        grads += torch.autograd.grad(y, x, g)
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_batch_norm_relu_is_the_same_on_any_number_of_threads():
    torch.manual_seed(0)
    x = make_map(4, 32, 32, 32, dtype=torch.float32)

    def run():
        y, _ = batch_norm_relu(x, *(torch.ones(32, requires_grad=i == 0) for i in range(4)), training=True)
        return [y, *torch.autograd.grad(y.square().sum(), x)]

    check_threads(run)


def test_batch_norm_relu_of_nan_is_nan():
    x = torch.zeros(2, 4, 2, 2).to(memory_format=torch.channels_last)
    x[0, 1, 0, 0] = torch.nan
    y, pooled = batch_norm_relu(
        x, torch.ones(4), torch.zeros(4), torch.zeros(4), torch.ones(4), training=True, pool=True
    )
    assert y[:, 1].isnan().all()
    assert pooled[:, 1].isnan().all()
    assert y[:, [0, 2, 3]].isfinite().all()


def stem_inputs(batch, inputs, height, width, outputs, offset=0.0):
    """The map, and the weights of the convolution and of the norm."""
    x = make_map(batch, inputs, height, width, dtype=torch.float32, offset=offset).detach()
    weight = make_map(outputs, inputs, 3, 3, dtype=torch.float32)
    return [x, weight, *(torch.randn(outputs).requires_grad_() for _ in range(2))]


def run_stem(function, tensors, gradient, dtype=None, eps=0.5):
    """What comes out, the running statistics, and the gradients of all weights."""
    running = [torch.zeros(len(tensors[2]), dtype=tensors[2].dtype) for _ in range(2)]
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        y = function(*tensors, *running, training=True, momentum=0.3, eps=eps)
    return [y, *running, *torch.autograd.grad(y, tensors[1:], gradient.to(y.dtype))]


def plain_stem(x, weight, *norm, **options):
    convolved = F.conv2d(x, weight, padding=1)
    return reference.batch_norm_relu(convolved, *norm, pool=False, keep=True, **options)[0]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
@pytest.mark.parametrize("inputs", [1, 2])
@pytest.mark.parametrize(
    ("batch", "height", "width", "outputs"),
    [
        (2, 5, 7, 5),
        (1, 40, 70, 32),
        (3, 9, 13, 17),
        (1, 1, 3, 3),
        (2, 3, 1, 16),
        (1, 2, 2, 40),
        (20, 1, 1, 4),
    ],
)
def test_stem(batch, height, width, outputs, inputs, dtype):
    """Values, running statistics and gradients."""
    torch.manual_seed(0)
    tensors = stem_inputs(batch, inputs, height, width, outputs, offset=1.0)
    with torch.no_grad():  # two channels that are the same everywhere, one of them at the ReLU's edge
        tensors[2][:2], tensors[3][:2] = 0, torch.tensor([1.0, 0.0])
    # As one would come from a concatenation: a slice of the channels.
    gradient = torch.randn(batch, outputs + 3, height, width).to(memory_format=torch.channels_last)[:, 3:]
    results = run_stem(stem, tensors, gradient, dtype)
    assert "Stem" in type(results[0].grad_fn).__name__
    assert results[0].is_contiguous(memory_format=torch.channels_last)
    assert results[0].dtype == (dtype or torch.float32)
    expected = run_stem(plain_stem, with_dtype(tensors, torch.float64), gradient)
    if dtype is None:
        check(results, expected, run_stem(plain_stem, tensors, gradient))
    else:
        # Which pixel is above 0 may hang on a rounding: of what comes out alone.
        for result, exact in zip(results, expected, strict=True):
            assert (result.double() - exact).norm() <= 0.01 * exact.norm()


def test_stem_keeps_its_digits_where_neighbours_are_alike():
    """Differences of neighbours, on a map that hardly changes and ends in zeros: their variance is a few
    millionths of the map's square."""
    torch.manual_seed(0)
    x = (0.5 - 0.5 * torch.linspace(0, 2 * torch.pi, 2000).cos()).expand(1, 1, 8, -1)
    x = x + 1e-4 * torch.randn(1, 1, 8, 2000)
    weight = torch.zeros(2, 1, 3, 3)
    weight[0, 0, 1, :2], weight[1, 0, 1, 1:] = torch.tensor([1.0, -1.0]), torch.tensor([1.0, -1.0])
    assert F.conv2d(x, weight, padding=1).var() < 1e-5 * x.square().mean()
    tensors = [x, weight.requires_grad_(), *(torch.ones(2).requires_grad_() for _ in range(2))]
    gradient = torch.randn(1, 2, 8, 2000)
    expected = run_stem(plain_stem, with_dtype(tensors, torch.float64), gradient, eps=1e-12)
    plain = run_stem(plain_stem, tensors, gradient, eps=1e-12)
    check(run_stem(stem, tensors, gradient, eps=1e-12), expected, plain)


@pytest.mark.parametrize("value", [0.1, 1e4])
def test_stem_of_a_map_that_is_the_same_everywhere(value):
    """No variance at all, for all that rounding may make of it."""
    tensors = [torch.full((20, 1, 1, 1), value), *stem_inputs(1, 1, 1, 1, 16)[1:]]
    y, _, var, *gradients = run_stem(stem, tensors, torch.ones(20, 16, 1, 1), eps=1e-30)
    assert ((var >= 0) & (var < 1e-12 * value**2)).all()
    assert all(t.isfinite().all() for t in (y, *gradients))


def test_stem_is_the_same_on_any_number_of_threads():
    torch.manual_seed(0)
    tensors, gradient = stem_inputs(4, 1, 32, 32, 32), torch.randn(4, 32, 32, 32)
    check_threads(lambda: run_stem(stem, tensors, gradient))


def test_stem_of_nan_is_nan():
    tensors = stem_inputs(1, 1, 4, 4, 3)
    tensors[0][0, 0, 3, 3] = torch.nan
    y, mean, var, *gradients = run_stem(stem, tensors, torch.ones(1, 3, 4, 4))
    assert all(t.isnan().all() for t in (y, mean, var, gradients[0]))


def test_stem_takes_weights_in_any_layout():
    tensors = stem_inputs(2, 2, 6, 5, 8)
    others = [tensors[0], tensors[1].detach().contiguous().requires_grad_(), *tensors[2:]]
    gradient = torch.randn(2, 8, 6, 5)
    results = [run_stem(stem, inputs, gradient) for inputs in (tensors, others)]
    assert "Stem" in type(results[1][0].grad_fn).__name__
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_stem_counts_as_the_convolution_that_it_is():
    counts = []
    for function in (stem, plain_stem):
        tensors = stem_inputs(2, 2, 9, 8, 24)
        with FlopCounterMode(display=False) as counter:
            run_stem(function, tensors, torch.ones(2, 24, 9, 8))
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    "case", ["inference", "gradient", "channels", "kernel", "layout", "float64", "bfloat16", "asked"]
)
def test_stem_of_all_else_is_its_two_operations(case):
    x, weight, *norm = stem_inputs(2, 3 if case == "channels" else 2, 6, 5, 8)
    norm += [torch.zeros(8), torch.ones(8)]
    dtype = {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(case, torch.float32)
    x, weight, *norm = (t.detach().to(dtype) for t in (x, weight, *norm))
    if case == "kernel":
        weight = F.pad(weight, (1, 1, 1, 1))
    if case == "layout":
        x = x.contiguous()
    x.requires_grad_(case == "gradient")
    options = {"training": case != "inference", "momentum": 0.2, "eps": 1e-3}
    others = [t.clone() for t in norm]
    with use_backend("reference" if case == "asked" else "cpp"):
        y = stem(x, weight.requires_grad_(), *norm, **options)
        expected, _ = batch_norm_relu(conv3x3(x, weight), *others, **options)
    assert "Stem" not in type(y.grad_fn).__name__
    torch.testing.assert_close([y, *norm], [expected, *others], rtol=0, atol=0)


def test_stem_refuses_what_does_not_fit():
    x, weight, *norm = stem_inputs(2, 2, 6, 5, 8)
    with pytest.raises(ValueError, match=r"running_mean must have weight's shape \[8\], got \[7\]"):
        stem(x, weight, *norm, torch.zeros(7), torch.ones(8), training=True)
    with pytest.raises(RuntimeError, match="channels"):
        stem(x, weight[:, :1], *norm, torch.zeros(8), torch.ones(8), training=True)
    ops, padded = torch.ops.binaural, F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    weight, *norm = (t.detach() for t in (weight, *norm))
    for other in (
        padded[0],
        padded.double(),
        padded.permute(0, 2, 1, 3),
        padded[:, :2],
        padded.repeat(1, 1, 1, 2),
    ):
        with pytest.raises(RuntimeError, match="padded must be"):
            ops.stem_forward(other, weight, *norm, 1e-5, torch.float32)
    for other in (weight[:, :1].contiguous(), weight[:7]):
        with pytest.raises(RuntimeError, match="weight must be"):
            ops.stem_forward(padded, other, *norm, 1e-5, torch.float32)
    with pytest.raises(RuntimeError, match="norm_bias must be"):
        ops.stem_forward(padded, weight, norm[0], norm[1][:7], 1e-5, torch.float32)
    with pytest.raises(RuntimeError, match="dtype must be"):
        ops.stem_forward(padded, weight, *norm, 1e-5, torch.float64)
    y, *_, moments = ops.stem_forward(padded, weight, *norm, 1e-5, torch.float32)
    dy = y.permute(0, 3, 1, 2)
    with pytest.raises(RuntimeError, match="dy must have the shape"):
        ops.stem_backward(
            dy[:, :, 1:].contiguous(memory_format=torch.channels_last), padded, weight, *norm, moments, 1e-5
        )
    with pytest.raises(RuntimeError, match="moments must be"):
        ops.stem_backward(dy, padded, weight, *norm, moments.float(), 1e-5)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("skip", "below"),
    [
        ((2, 3, 8, 8), (2, 5, 4, 4)),
        ((1, 16, 9, 7), (1, 20, 4, 3)),
        ((1, 4, 5, 5), (1, 33, 1, 1)),
        ((1, 4, 3, 3), (1, 4, 6, 6)),
        ((2, 0, 8, 7), (2, 21, 4, 3)),
    ],
)
def test_upsample_concat(skip, below, dtype):
    torch.manual_seed(0)
    leaves = [make_map(*shape, dtype=dtype) for shape in (skip, below)]
    gradient = torch.randn(skip[0], skip[1] + below[1], *skip[2:]).to(memory_format=torch.channels_last)

    def run(function, *leaves):
        joined = function(*leaves)
        with_gradient = [leaf for leaf in leaves if leaf.numel() > 0]
        return [joined, *torch.autograd.grad(joined, with_gradient, gradient.to(joined.dtype))]

    results = run(upsample_concat, *leaves)
    assert "UpsampleConcat" in type(upsample_concat(*leaves).grad_fn).__name__
    expected = run(reference.upsample_concat, *with_dtype(leaves, torch.float64))
    check(results, expected, run(reference.upsample_concat, *leaves))


@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize("backend", ["reference", "cpp"])
def test_maps_of_different_batches_are_not_joined(backend, channels):
    below = torch.randn(2, 4, 4, 4).to(memory_format=torch.channels_last)
    with use_backend(backend), pytest.raises(ValueError, match="must be of the same batch"):
        upsample_concat(torch.empty(3, channels, 8, 8), below)


@pytest.mark.parametrize("below", [(2, 5, 4, 6), (1, 3, 1, 1), (1, 2, 1, 5)])
def test_upsampling_that_is_compiled_is_interpolation(below):
    torch.manual_seed(0)
    skip = (below[0], 3, 2 * below[2], 2 * below[3])
    leaves = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in (skip, below)]
    graphs = []

    def keep(graph, _):
        graphs.append(graph)
        return graph

    compiled = torch.compile(reference.upsample_concat, backend=keep, fullgraph=True)
    joined, expected = compiled(*leaves), reference.upsample_concat(*leaves)
    torch.testing.assert_close(joined, expected, rtol=1e-12, atol=1e-12)
    gradient = torch.randn_like(expected)
    results, wanted = (torch.autograd.grad(y, leaves, gradient) for y in (joined, expected))
    torch.testing.assert_close(results, wanted, rtol=1e-12, atol=1e-12)
    assert "interpolate" not in graphs[0].code


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("shape", "block"),
    [((2, 5, 6, 9), (2, 3)), ((1, 70, 4, 4), (4, 4)), ((3, 32, 8, 2), (1, 2)), ((1, 3, 2, 2), (1, 1))],
)
def test_average_pool(shape, block, dtype):
    torch.manual_seed(0)
    x = make_map(*shape, dtype=dtype, offset=1.0)
    # As one would come from a concatenation: a slice of the channels.
    size = [shape[0], shape[1] + 2, shape[2] // block[0], shape[3] // block[1]]
    gradient = torch.randn(size).to(memory_format=torch.channels_last)[:, 2:]

    def run(function, x):
        y = function(x, block)
        return [y, *torch.autograd.grad(y, x, gradient.to(x.dtype))]

    results = run(average_pool, x)
    assert "AveragePool" in type(results[0].grad_fn).__name__
    assert all(t.is_contiguous(memory_format=torch.channels_last) for t in results)
    check(results, run(F.avg_pool2d, *with_dtype([x], torch.float64)), run(F.avg_pool2d, x))


def test_average_pool_refuses_what_does_not_divide():
    x = make_map(1, 2, 4, 6, dtype=torch.float32).detach()
    for block in ((3, 2), (2, 4), (0, 2), (2, -1)):
        with pytest.raises(ValueError, match="block must divide x's height and width"):
            average_pool(x, block)
    with pytest.raises(RuntimeError, match="sides must divide"):
        torch.ops.binaural.average_pool_forward(x, 3, 2)
    with pytest.raises(RuntimeError, match="block must be not empty"):
        torch.ops.binaural.average_pool_backward(x, 0, 2)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 5, 7, 9), (3, 32, 8, 6), (1, 70, 4, 5), (40, 3, 2, 3), (1, 16, 1, 1)])
def test_layer_norm(shape, dtype):
    torch.manual_seed(0)
    x = make_map(*shape, dtype=dtype, offset=3.0)
    weight, bias = (torch.randn(shape[1]).requires_grad_() for _ in range(2))
    # A slice of the channels, as a convolution's gradient may be.
    gradient = torch.randn(shape[0], 2 * shape[1], *shape[2:]).to(memory_format=torch.channels_last)
    gradient = gradient[:, shape[1] :]

    def run(function, x, weight, bias):
        y = function(x, weight, bias, 1e-5)
        return [y, *torch.autograd.grad(y, (x, weight, bias), gradient.to(y.dtype))]

    results = run(layer_norm, x, weight, bias)
    assert "LayerNorm" in type(layer_norm(x, weight, bias).grad_fn).__name__
    assert results[0].is_contiguous(memory_format=torch.channels_last)
    expected = run(reference.layer_norm, *with_dtype((x, weight, bias), torch.float64))
    check(results, expected, run(reference.layer_norm, x, weight, bias))


def test_layer_norm_keeps_its_digits_where_the_mean_is_large():
    torch.manual_seed(0)
    x = make_map(2, 48, 3, 5, dtype=torch.float32, offset=1000.0).detach()
    expected = reference.layer_norm(x.double(), *(f(48).double() for f in (torch.ones, torch.zeros)), 1e-5)
    result = layer_norm(x, torch.ones(48), torch.zeros(48))
    assert (result - expected).norm() <= 1e-4 * expected.norm()


def test_layer_norm_is_the_same_on_any_number_of_threads():
    torch.manual_seed(0)
    x = make_map(4, 32, 32, 32, dtype=torch.float32)
    weight, bias = (torch.ones(32, requires_grad=True) for _ in range(2))

    def run():
        y = layer_norm(x, weight, bias)
        return [y, *torch.autograd.grad((y * x).square().sum(), (x, weight, bias))]

    check_threads(run)


@pytest.mark.parametrize("case", ["layout", "float64", "weight", "bias"])
def test_layer_norm_of_all_else_is_pytorchs(case):
    torch.manual_seed(0)
    dtype = torch.float64 if case == "float64" else torch.float32
    x, weight, bias = (
        make_map(2, 6, 3, 5, dtype=dtype),
        torch.randn(6, dtype=dtype),
        torch.randn(6, dtype=dtype),
    )
    if case == "layout":
        x = x.detach().contiguous().requires_grad_()
    if case == "weight":
        weight = torch.randn(12)[::2]
    if case == "bias":
        bias = torch.randn(12)[::2]
    y = layer_norm(x, weight, bias)
    assert "LayerNormBackward" not in type(y.grad_fn).__name__
    pixels = x.permute(0, 2, 3, 1)
    deviation = pixels.var(-1, correction=0, keepdim=True).add(1e-5).sqrt()
    expected = (pixels - pixels.mean(-1, keepdim=True)) / deviation * weight + bias
    torch.testing.assert_close(y, expected.permute(0, 3, 1, 2))


def test_layer_norm_refuses_what_is_not_of_the_channels():
    x = make_map(2, 6, 3, 3, dtype=torch.float32)
    with pytest.raises(ValueError, match=r"bias must be \[C\] = \[6\], got \[3\]"):
        layer_norm(x, torch.ones(6), torch.ones(3))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(2, 6, 5, 7), (4, 64, 3, 8), (6, 2, 1, 1), (2, 70, 2, 3)])
def test_add_mirrored(shape, dtype):
    torch.manual_seed(0)
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


def test_add_mirrored_of_all_else_is_the_definition():
    both = torch.randn(4, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(add_mirrored, both)
    in_kernels = both.detach().float().to(memory_format=torch.channels_last)
    torch.testing.assert_close(add_mirrored(both).float(), add_mirrored(in_kernels))


@pytest.mark.parametrize("shape", [(3, 4, 3, 3), (2, 3, 3, 3), (2, 4, 3)])
def test_add_mirrored_refuses_what_has_no_halves(shape):
    with pytest.raises(ValueError, match="an even C, got"):
        add_mirrored(torch.zeros(shape))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("parts", "kernel"), [([4], (3, 3)), ([6, 2], (3, 3)), ([34, 50], (3, 5)), ([2], (1, 1))]
)
def test_mirror_weight(parts, kernel, dtype):
    torch.manual_seed(0)
    weight = make_map(5, sum(parts), *kernel, dtype=torch.float32)
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


@pytest.mark.parametrize("case", ["three parts", "layout", "float64"])
def test_mirror_weight_of_all_else_is_the_definition(case):
    weight = make_map(3, 12, 3, 3, dtype=torch.float64 if case == "float64" else torch.float32)
    if case == "layout":
        weight = weight.detach().contiguous().requires_grad_()
    parts = [2, 4, 6] if case == "three parts" else [12]
    both = mirror_weight(weight, parts, weight.dtype)
    assert "MirrorWeight" not in type(both.grad_fn).__name__
    begin = 0
    for part in parts:
        own, other = weight[:, begin : begin + part].chunk(2, dim=1)
        mirrored = torch.cat([other, own], dim=1).flip(-1)
        torch.testing.assert_close(both[3:, begin : begin + part], mirrored, rtol=0, atol=0)
        begin += part
    torch.testing.assert_close(both[:3], weight, rtol=0, atol=0)


@pytest.mark.parametrize("parts", [[3, 5], [4, 2], [8, 0]])
def test_mirror_weight_refuses_parts_that_do_not_fit(parts):
    with pytest.raises(ValueError, match=r"parts must be even and sum to weight's C_in = 8, got \["):
        mirror_weight(torch.ones(2, 8, 3, 3), parts, torch.float32)


CONVOLUTIONS = [
    (2, 16, 5, 7, 9),
    (1, 48, 24, 40, 11),
    (3, 32, 16, 1, 5),
    (1, 16, 1, 6, 1),
    (1, 16, 17, 3, 300),
]


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "inputs", "outputs", "height", "width"), CONVOLUTIONS)
def test_the_gradient_of_a_convolutions_weights(batch, inputs, outputs, height, width, dtype):
    x = make_map(batch, inputs, height, width, dtype=dtype).detach()
    dy = make_map(batch, outputs, height, width, dtype=dtype).detach()
    weight = torch.zeros(outputs, inputs, 3, 3, dtype=torch.float64, requires_grad=True)
    (exact,) = torch.autograd.grad(F.conv2d(x.double(), weight, padding=1), weight, dy.double())
    result = torch.ops.binaural.conv_weight_gradient(dy, x).permute(0, 3, 1, 2)
    assert result.dtype == torch.float32
    assert (result - exact).norm() < 1e-6 * exact.norm()


def test_the_gradient_of_a_convolutions_weights_is_the_same_on_any_number_of_threads():
    x, dy = (make_map(2, channels, 20, 30, dtype=torch.float32).detach() for channels in (32, 50))
    check_threads(lambda: [torch.ops.binaural.conv_weight_gradient(dy, x)])


def test_the_gradient_of_a_convolutions_weights_refuses_what_does_not_fit():
    x, dy = (make_map(2, 16, 6, 5, dtype=torch.float32).detach() for _ in range(2))
    run = torch.ops.binaural.conv_weight_gradient
    for other in (dy[:1], dy[..., 1:], dy[:, :, 1:]):
        with pytest.raises(RuntimeError, match="dy must"):
            run(other.contiguous(memory_format=torch.channels_last), x)
    with pytest.raises(RuntimeError, match="dy must"):
        run(dy.bfloat16(), x)
    with pytest.raises(RuntimeError, match="x must have a multiple of 16 channels, got 8"):
        run(dy, x[:, :8].contiguous(memory_format=torch.channels_last))


@pytest.mark.parametrize("needs", ["both", "weight"])
def test_conv3x3(monkeypatch, needs):
    monkeypatch.setattr(CONV3X3, "_LIBRARY_IS_SLOW", True)
    x = make_map(2, 32, 9, 8, dtype=torch.float32).requires_grad_(needs == "both")
    weight = make_map(24, 32, 3, 3, dtype=torch.float32)
    inputs = [x, weight] if needs == "both" else [weight]
    y = conv3x3(x, weight)
    assert "Conv3x3" in type(y.grad_fn).__name__
    dy = torch.randn_like(y, memory_format=torch.contiguous_format)
    ours = [y, *torch.autograd.grad(y, inputs, dy)]
    exact = F.conv2d(x.double(), weight.double(), padding=1)
    for result, value in zip(ours, [exact, *torch.autograd.grad(exact, inputs, dy.double())], strict=True):
        assert result.is_contiguous(memory_format=torch.channels_last)
        assert (result - value).norm() < 1e-6 * value.norm()


def test_conv3x3_counts_as_the_convolution_that_it_is(monkeypatch):
    counts = []
    for ours in (False, True):
        monkeypatch.setattr(CONV3X3, "_LIBRARY_IS_SLOW", ours)
        x, weight = make_map(2, 32, 9, 8, dtype=torch.float32), make_map(24, 32, 3, 3, dtype=torch.float32)
        with FlopCounterMode(display=False) as counter:
            conv3x3(x, weight).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0


@pytest.mark.parametrize(
    "case", ["fast library", "layout", "float64", "channels", "small", "autocast", "inference"]
)
def test_conv3x3_of_all_else_is_pytorchs(monkeypatch, case):
    monkeypatch.setattr(CONV3X3, "_LIBRARY_IS_SLOW", case != "fast library")
    channels, side = 20 if case == "channels" else 16, 7 if case == "small" else 8
    dtype = torch.float64 if case == "float64" else torch.float32
    x, weight = make_map(2, channels, side, side, dtype=dtype), make_map(8, channels, 3, 3, dtype=dtype)
    if case == "layout":
        x = x.detach().contiguous()
    with torch.autocast("cpu", torch.bfloat16, enabled=case == "autocast"):
        with torch.set_grad_enabled(case != "inference"):
            y = conv3x3(x, weight)
        assert torch.equal(y, F.conv2d(x, weight, padding=1))
    assert "Conv3x3" not in type(y.grad_fn).__name__


def test_second_order_raises(monkeypatch):
    x = make_map(2, 4, 4, 4, dtype=torch.float32)
    y, _ = batch_norm_relu(x, torch.ones(4), torch.zeros(4), torch.zeros(4), torch.ones(4), training=True)
    (gradient,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()
    skip, below = make_map(1, 2, 4, 4, dtype=torch.float32), make_map(1, 2, 2, 2, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(upsample_concat(skip, below).square().sum(), below, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()
    (gradient,) = torch.autograd.grad(
        layer_norm(skip, torch.ones(2), torch.ones(2)).square().sum(), skip, create_graph=True
    )
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()
    two = make_map(2, 2, 4, 4, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(add_mirrored(two).square().sum(), two, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()
    (gradient,) = torch.autograd.grad(average_pool(two, (2, 2)).square().sum(), two, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()
    x, weight, *norm = stem_inputs(1, 1, 4, 4, 3)
    y = stem(x, weight, *norm, torch.zeros(3), torch.ones(3), training=True)
    (gradient,) = torch.autograd.grad(y.square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()
    both = mirror_weight(skip, [2], torch.float32)
    (gradient,) = torch.autograd.grad(both.square().sum(), skip, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()
    monkeypatch.setattr(CONV3X3, "_LIBRARY_IS_SLOW", True)
    x, weight = make_map(1, 16, 8, 8, dtype=torch.float32), make_map(4, 16, 3, 3, dtype=torch.float32)
    (gradient,) = torch.autograd.grad(conv3x3(x, weight).square().sum(), weight, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient of its own"):
        gradient.sum().backward()


@pytest.mark.parametrize("case", ["layout", "dtype", "asked"])
def test_all_else_runs_as_plain_pytorch(case):
    x = make_map(2, 4, 4, 4, dtype=torch.float64 if case == "dtype" else torch.float32)
    if case == "layout":
        x = x.detach().contiguous().requires_grad_()
    with use_backend("reference" if case == "asked" else "cpp"):
        joined = upsample_concat(x, x)
    assert "UpsampleConcat" not in type(joined.grad_fn).__name__


def test_operators_refuse_empty_maps():
    ops, empty = torch.ops.binaural, torch.empty(2, 3, 4, 0).permute(0, 3, 1, 2)
    weight = torch.empty(0)
    for call in (
        lambda: ops.add_mirrored_forward(empty),
        lambda: ops.average_pool_forward(empty, 1, 1),
        lambda: ops.average_pool_backward(empty, 1, 1),
        lambda: ops.stem_forward(torch.empty(0, 4, 4, 1), weight, weight, weight, 1e-5, torch.float32),
        lambda: ops.layer_norm_forward(empty, weight, weight, 1e-5),
        lambda: ops.mirror_weight_forward(empty, 0, torch.float32),
        lambda: ops.batch_norm_relu_forward(empty, weight, weight, 1e-5, False, True),
        lambda: ops.conv_weight_gradient(empty, empty),
    ):
        with pytest.raises(RuntimeError, match="not empty"):
            call()


@pytest.mark.parametrize(("shape", "norms"), [((2, 6, 7, 9), 6), ((2, 16, 8, 8), 16), ((2, 16, 8, 8), 8)])
def test_operators_pass_opcheck(shape, norms):
    channels = shape[1]
    x = make_map(*shape, dtype=torch.float32).detach()
    per_channel = [torch.rand(norms) for _ in range(4)]
    ops = torch.ops.binaural
    for pool, keep in ((False, True), (True, True), (True, False)):
        torch.library.opcheck(ops.batch_norm_relu_forward, (x, *per_channel[:2], 1e-5, pool, keep))
    pooled = make_map(shape[0], channels, shape[2] // 2, shape[3] // 2, dtype=torch.float32).detach()
    torch.library.opcheck(ops.batch_norm_relu_backward, (x[:], pooled, x, *per_channel, 1e-5))
    torch.library.opcheck(ops.upsample_concat_forward, (x, pooled))
    torch.library.opcheck(ops.upsample_concat_forward, (x[:, :0], pooled))
    torch.library.opcheck(ops.upsample_concat_backward, (x[:, 2:], 3, 4))
    of_channels = [torch.rand(channels) for _ in range(2)]
    torch.library.opcheck(ops.layer_norm_forward, (x, *of_channels, 1e-5))
    of_pixels = [torch.rand(x.numel() // channels) for _ in range(2)]
    sliced = torch.cat([x, x], dim=1)[:, channels:]
    for gradient in (x * 2, sliced):
        torch.library.opcheck(ops.layer_norm_backward, (gradient, x, of_channels[0], *of_pixels))
    torch.library.opcheck(ops.add_mirrored_forward, (x,))
    torch.library.opcheck(ops.add_mirrored_backward, (x,))
    torch.library.opcheck(
        ops.conv_weight_gradient, (x, make_map(shape[0], 32, *shape[2:], dtype=torch.float32).detach())
    )
    weight = make_map(4, 6, 3, 3, dtype=torch.float32).detach()
    for dtype in DTYPES:
        torch.library.opcheck(ops.mirror_weight_forward, (weight, 4, dtype))
        torch.library.opcheck(ops.mirror_weight_backward, (weight.to(dtype), 4))
    for side in (1, shape[3]):
        torch.library.opcheck(ops.average_pool_forward, (x, 1, side))
        torch.library.opcheck(ops.average_pool_backward, (x, 2, side))
    heard, weight, *norm = (t.detach() for t in stem_inputs(2, 2, 6, 5, 8))
    padded = F.pad(heard, (1, 1, 1, 1)).permute(0, 2, 3, 1).contiguous()
    for dtype in DTYPES:
        torch.library.opcheck(ops.stem_forward, (padded, weight, *norm, 1e-5, dtype))
        y, *_, moments = ops.stem_forward(padded, weight, *norm, 1e-5, dtype)
        torch.library.opcheck(
            ops.stem_backward, (y.permute(0, 3, 1, 2), padded, weight, *norm, moments, 1e-5)
        )
