"""The loss modules: their weights, and the curriculum that moves them."""

import pytest
import torch

from binaural import kernels
from binaural.losses import AdaptiveBinauralAttentionLoss, BinauralAttentionLoss


def make_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    pred = torch.rand(2, 1, 12, 17, generator=generator) * 10
    target = torch.rand(2, 1, 12, 17, generator=generator) * 10
    target[0, 0, 2:4, 3:7] = 0
    return pred.requires_grad_(), target


def test_total_is_the_weighted_sum_of_the_terms() -> None:
    pred, target = make_batch()
    total, terms = BinauralAttentionLoss(0.5, 2.0, 0.25)(pred, target)
    assert terms.shape == (3,)
    assert not terms.requires_grad
    assert (terms > 0).all()
    torch.testing.assert_close(total, (terms * torch.tensor([0.5, 2.0, 0.25])).sum())


def test_it_is_the_kernel_with_the_same_weights() -> None:
    pred, target = make_batch()
    total, terms = BinauralAttentionLoss(0.5, 2.0, 0.25)(pred, target)
    (grad,) = torch.autograd.grad(total, pred)
    expected_total, expected_terms = kernels.edge_aware_loss(
        pred, target, lambda_recon=0.5, lambda_edge=2.0, lambda_smooth=0.25
    )
    (expected_grad,) = torch.autograd.grad(expected_total, pred)
    assert torch.equal(total, expected_total)
    assert torch.equal(terms, expected_terms)
    assert torch.equal(grad, expected_grad)


def test_the_default_weights() -> None:
    assert BinauralAttentionLoss().weights.tolist() == pytest.approx([1.0, 0.2, 0.1])


def test_the_weights_follow_the_module_and_are_not_saved() -> None:
    loss = BinauralAttentionLoss()
    assert loss.state_dict() == {}
    assert not list(loss.parameters())
    assert loss.to("meta").weights.device.type == "meta"


@pytest.mark.parametrize("name", ["lambda_recon", "lambda_edge", "lambda_smooth"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf")])
@pytest.mark.parametrize("module", [BinauralAttentionLoss, AdaptiveBinauralAttentionLoss])
def test_a_negative_or_non_finite_weight_is_refused(module: type, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=name):
        module(**{name: value})


def test_a_weight_that_is_no_number_is_refused() -> None:
    with pytest.raises(TypeError, match="lambda_edge"):
        BinauralAttentionLoss(lambda_edge="0.2")  # type: ignore[arg-type]


def test_the_curriculum_adds_edges_then_smoothness() -> None:
    loss = AdaptiveBinauralAttentionLoss(2.0, 0.4, 0.1)
    assert loss.weights.tolist() == [2.0, 0.0, 0.0]
    schedule = []
    for epoch in range(100):
        loss.set_epoch(epoch, 100)
        schedule.append(loss.weights.tolist())
    recon, edge, smooth = zip(*schedule, strict=True)
    assert set(recon) == {2.0}
    assert edge[:11] == (0.0,) * 11
    assert edge[20] == pytest.approx(0.2)
    assert edge[30:] == pytest.approx((0.4,) * 70)
    assert smooth[:31] == (0.0,) * 31
    assert smooth[35] == pytest.approx(0.05)
    assert smooth[40:] == pytest.approx((0.1,) * 60)
    assert list(edge) == sorted(edge)
    assert list(smooth) == sorted(smooth)


@pytest.mark.parametrize(("epoch", "epochs"), [(-1, 10), (10, 10), (0, 0)])
def test_an_epoch_outside_the_training_is_refused(epoch: int, epochs: int) -> None:
    with pytest.raises(ValueError, match="epoch"):
        AdaptiveBinauralAttentionLoss().set_epoch(epoch, epochs)


def test_new_weights_recompile_nothing() -> None:
    loss = AdaptiveBinauralAttentionLoss()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    pred, target = make_batch()
    with torch._dynamo.config.patch(error_on_recompile=True):
        for epoch in range(10):
            loss.set_epoch(epoch, 10)
            total, _ = compiled(pred, target)
            (grad,) = torch.autograd.grad(total, pred)
            expected, _ = loss(pred, target)
            (expected_grad,) = torch.autograd.grad(expected, pred)
            torch.testing.assert_close(total, expected)
            torch.testing.assert_close(grad, expected_grad)
