"""The depth loss on the CPU beyond the common suite: threads, instruction sets, long sums."""

import pytest
import torch
from backend import Backend
from depth_loss_cases import defined, make, relative_error, run

from binaural.kernels.depth_loss import weighted_loss

SHAPES = [(1, 1, 1), (1, 3, 5), (2, 257, 129), (17, 40, 64), (1, 300, 333), (1, 20, 1100)]


@pytest.fixture(autouse=True)
def _available() -> None:
    Backend("cpp", "cpu").skip_unless_available("edge_aware_loss")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_number_of_threads_does_not_change_a_bit(shape: tuple[int, ...]) -> None:
    pred, target = (t.float() for t in make(shape))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(pred, target, "cpp")
        torch.set_num_threads(3)
        together = run(pred, target, "cpp")
    finally:
        torch.set_num_threads(threads)
    for one, three in zip(alone, together, strict=True):
        assert torch.equal(one, three)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_instruction_sets_agree(isa: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    tolerance = {torch.float32: 1e-6, torch.float64: 1e-13, torch.bfloat16: 8e-3, torch.float16: 2e-3}[dtype]
    pred, target = make(shape)
    expected = defined(pred, target)
    total, terms, gradient = run(pred.to(dtype), target.to(dtype), "cpp")
    assert relative_error(total, expected[0]) < min(tolerance, 1e-6)
    assert relative_error(terms, expected[1]) < min(tolerance, 1e-6)
    assert relative_error(gradient, expected[2]) < tolerance


def test_without_a_gradient_none_is_computed() -> None:
    pred, target = (t.float() for t in make((2, 6, 7)))
    _, _, coded, _ = torch.ops.binaural.edge_aware_loss_forward(pred, target, torch.ones(3), False)
    assert coded.numel() == 0


def test_sums_over_a_hundred_million_pixels_are_exact_to_float32() -> None:
    # One row of depths that float32 cannot add without rounding, 100 million pixels of them.
    row_pred, row_target = (t.float() for t in make((1, 1, 10000), invalid=0.0))
    pred, target = (t.expand(10, 1000, 10000) for t in (row_pred, row_target))
    _, terms = weighted_loss(pred, target, torch.ones(3), backend="cpp")
    _, expected, _ = defined(*(t[:1, :50].double() for t in (pred, target)))
    # Every row of the stack but first and last is the same.
    assert terms[0].item() == pytest.approx(expected[0].item(), rel=1.2e-7)
    assert terms[1].item() == pytest.approx(expected[1].item(), rel=2.4e-7)
    assert terms[2].item() == pytest.approx(expected[2].item(), rel=2.4e-7)
