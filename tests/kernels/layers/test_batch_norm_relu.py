"""Batch norm, ReLU and max-pooling against their definition in plain PyTorch."""

import pytest
import torch
from layer_cases import DTYPES, check, check_threads, make_map, make_slice, with_dtype

from binaural.kernels.layers import batch_norm_relu, reference

# Shapes of the map, and how many norms its channels share.
SHAPES = (
    ((2, 5, 7, 9), 5),
    ((2, 32, 8, 6), 32),
    ((1, 70, 4, 5), 70),
    ((40, 3, 2, 3), 3),
    ((2, 16, 5, 3), 8),
    ((1, 36, 4, 4), 12),
    ((1, 6, 1, 1), 3),
)


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_running_statistics_and_gradients(dtype):
    """With each combination of outputs that are computed and used."""
    torch.manual_seed(0)
    for shape, norms in SHAPES:
        x = make_map(*shape, dtype=dtype, offset=3.0)
        weight, bias = (torch.randn(norms).requires_grad_() for _ in range(2))
        with torch.no_grad():  # two channels are constant, one of them at the edge of the ReLU
            weight[:2], bias[:2] = 0, torch.tensor([1.0, 0.0])
        check_outputs(x, weight, bias, pool=False, use=True, keep=True)
        if shape[2] > 1:
            for use, keep in ((True, True), (False, True), (False, False)):
                check_outputs(x, weight, bias, pool=True, use=use, keep=keep)


def check_outputs(x, weight, bias, pool, use, keep):
    """Compare with the definition; y contributes to the loss if `use`, the pooled map if `pool`."""
    shape, norms = x.shape, len(weight)
    gradient = torch.randn(shape)
    pooled_gradient = torch.randn(*shape[:2], shape[2] // 2, shape[3] // 2)

    def run(function, x, weight, bias):
        running = [torch.zeros(norms, dtype=weight.dtype), torch.ones(norms, dtype=weight.dtype)]
        y, pooled = function(
            x, weight, bias, *running, training=True, momentum=0.1, eps=1e-5, pool=pool, keep=keep
        )
        assert y.shape == (shape if keep else (shape[0], 0, *shape[2:]))
        assert y.requires_grad == keep
        loss = (y * gradient).sum() if use else 0.0
        if pool:
            loss = loss + (pooled * pooled_gradient).sum()
        gradients = torch.autograd.grad(loss, (x, weight, bias))
        return [*([y] if keep else []), *([pooled] if pool else []), *running, *gradients]

    results = run(batch_norm_relu, x, weight, bias)
    assert results[0].is_contiguous(memory_format=torch.channels_last)
    assert "BatchNormReLU" in type(results[0].grad_fn).__name__
    expected = run(reference.batch_norm_relu, *with_dtype((x, weight, bias), torch.float64))
    if x.dtype == torch.float32:
        check(results, expected, run(reference.batch_norm_relu, x, weight, bias))
        return
    # Rounding to bfloat16 may change which pixel is the largest and which is above 0.
    for result, exact in zip(results, expected, strict=True):
        assert (result.double() - exact).norm() <= 0.05 * exact.norm()


def test_shared_norms_are_a_batch_norm_over_the_channels_that_share_them():
    """Channels 0 and 3, 1 and 4, 2 and 5 of six: against one map after the other in one batch."""
    torch.manual_seed(0)
    x = make_map(2, 6, 4, 5)
    norm = torch.nn.BatchNorm2d(3)
    y, _ = batch_norm_relu(
        x, norm.weight, norm.bias, torch.zeros(3), torch.ones(3), training=True, momentum=0.1
    )
    torch.testing.assert_close(torch.cat(y.chunk(2, dim=1)), norm(torch.cat(x.chunk(2, dim=1))).relu())


def test_without_training_the_running_statistics_normalise():
    torch.manual_seed(0)
    x, norm = make_map(2, 4, 4, 6), torch.nn.BatchNorm2d(4).eval()
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    numbers = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    y, pooled = batch_norm_relu(x, *(t.clone() for t in numbers), training=False, pool=True)
    torch.testing.assert_close(y, norm(x).relu())
    torch.testing.assert_close(pooled, torch.nn.functional.max_pool2d(norm(x).relu(), 2))


def test_sizes_that_do_not_fit_raise():
    x = make_map(2, 5, 4, 4)
    with pytest.raises(ValueError, match="weight must be .* C = 5, got 3"):
        batch_norm_relu(x, *(torch.ones(3) for _ in range(4)), training=True)
    for index, name in enumerate(("bias", "running_mean", "running_var"), 1):
        sizes = [5 if i == index else 1 for i in range(4)]
        with pytest.raises(ValueError, match=rf"{name} must have weight's shape \[1\], got \[5\]"):
            batch_norm_relu(x, *(torch.ones(size) for size in sizes), training=True)


def test_a_batch_of_one_value_per_norm_raises():
    numbers = [torch.ones(4) for _ in range(4)]
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        batch_norm_relu(make_map(1, 4, 1, 1), *numbers, training=True)


def test_an_output_must_be_wanted():
    x, numbers = make_map(2, 4, 4, 4).detach(), [torch.ones(4) for _ in range(4)]
    with pytest.raises(ValueError, match="without keep needs pool"):
        batch_norm_relu(x, *numbers, training=True, keep=False)
    with pytest.raises(RuntimeError, match="keep or pool must be true"):
        torch.ops.binaural.batch_norm_relu_forward(x, *numbers[:2], 1e-5, False, False)


def test_a_slice_of_the_channels_as_gradient():
    torch.manual_seed(0)
    x = make_map(2, 6, 4, 4)
    arguments = (torch.ones(6), torch.zeros(6), torch.zeros(6), torch.ones(6))
    gradient, grads = make_slice(2, 6, 4, 4), []
    for g in (gradient, gradient.contiguous()):
        y, _ = batch_norm_relu(x, *arguments, training=True)
        grads += torch.autograd.grad(y, x, g)
    torch.testing.assert_close(*grads, rtol=0, atol=0)


def test_the_same_bits_on_any_number_of_threads():
    torch.manual_seed(0)
    x = make_map(4, 32, 32, 32)

    def run():
        y, _ = batch_norm_relu(x, *(torch.ones(32, requires_grad=i == 0) for i in range(4)), training=True)
        return [y, *torch.autograd.grad(y.square().sum(), x)]

    check_threads(run)


def test_nan_gives_nan():
    x = torch.zeros(2, 4, 2, 2).to(memory_format=torch.channels_last)
    x[0, 1, 0, 0] = torch.nan
    y, pooled = batch_norm_relu(
        x, torch.ones(4), torch.zeros(4), torch.zeros(4), torch.ones(4), training=True, pool=True
    )
    assert y[:, 1].isnan().all()
    assert pooled[:, 1].isnan().all()
    assert y[:, [0, 2, 3]].isfinite().all()
