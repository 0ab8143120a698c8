import math

import pytest
import torch

from binaural.models.adaptive_bins import (
    AdaptiveBinsLoss,
    AdaptiveBinsNet,
    BinnedDepth,
    DistillationLoss,
    chamfer,
)


def make_network(**options):
    torch.manual_seed(0)
    return AdaptiveBinsNet(4, 6.0, 8, **options)


def test_bins_are_the_scenes_own_and_share_the_range():
    network = make_network().eval()
    seen = network.see(torch.randn(2, 2, 32, 32) * torch.tensor([1.0, 30.0]).view(2, 1, 1, 1))
    assert not torch.allclose(seen.centres[0], seen.centres[1])
    edges = torch.zeros(2)
    for centre in seen.centres.T:  # the centre of a bin is as far from its upper edge as from its lower
        assert (centre > edges).all()
        edges = 2 * centre - edges
    torch.testing.assert_close(edges, torch.full((2,), 6.0))


def test_depth_is_the_mean_of_the_centres():
    network = make_network().eval()
    x = torch.randn(1, 2, 32, 32)
    seen = network.see(x)
    probabilities = network.classify(seen.features).softmax(1)
    assert probabilities.shape == (1, 8, 32, 32)
    expected = (probabilities * seen.centres.view(1, 8, 1, 1)).sum(1, keepdim=True)
    torch.testing.assert_close(seen.depth, expected)
    torch.testing.assert_close(network(x), seen.depth)


def brute_chamfer(centres, depth):
    """Over images of the batch, by all pairs."""
    to_centres = [(d[:, None] - c).square().min(1).values for c, d in zip(centres, depth, strict=True)]
    to_points = [
        (c[:, None] - d).square().min(1).values for c, d in zip(centres, depth, strict=True) if len(d)
    ]
    return torch.cat(to_centres).mean() + torch.cat(to_points).mean()


def test_chamfer_is_that_of_all_pairs():
    centres = (6 * torch.rand(3, 8)).sort(1).values.requires_grad_()
    depth = 6 * torch.rand(3, 1, 5, 7)
    valid = torch.rand(depth.shape) < 0.5
    valid[2] = False
    found = chamfer(centres, depth, valid)
    expected = brute_chamfer(centres, [d[v] for d, v in zip(depth, valid, strict=True)])
    torch.testing.assert_close(found, expected)
    gradients = [torch.autograd.grad(x, centres)[0] for x in (found, expected)]
    torch.testing.assert_close(*gradients)


def test_the_teachers_loss_is_its_formula():
    depth, target = 1 + torch.rand(1, 1, 8, 8), 1 + torch.rand(1, 1, 8, 8)
    target[0, 0, :3], target[0, 0, 4] = 0, torch.nan
    centres = torch.linspace(1, 2, 8)[None]
    total, terms = AdaptiveBinsLoss(2.0, 3.0)(BinnedDepth(depth, centres, depth), target)
    valid = torch.isfinite(target) & (target > 0)
    g = depth[valid].log() - target[valid].log()
    silog = 10 * math.sqrt(float((g**2).mean() - 0.85 * g.mean() ** 2))
    assert float(terms[0]) == pytest.approx(silog, rel=1e-4)
    torch.testing.assert_close(terms[1], chamfer(centres, target, valid))
    assert float(total) == pytest.approx(2 * float(terms[0]) + 3 * float(terms[1]), rel=1e-5)


def test_without_a_valid_pixel_the_loss_is_finite():
    network = make_network()
    total, terms = AdaptiveBinsLoss()(network(torch.randn(2, 2, 32, 32)), torch.zeros(2, 1, 32, 32))
    total.backward()
    assert torch.isfinite(terms).all()
    assert all(torch.isfinite(p.grad).all() for p in network.parameters())


def test_a_student_like_its_teacher_has_nothing_left_to_learn_from_it():
    teacher = make_network(features=["camera"])
    loss = DistillationLoss(teacher)
    picture = torch.rand(1, 3, 32, 32)
    taught = teacher.see(picture)
    total, terms = loss(taught, torch.full((1, 1, 32, 32), 2.0), picture)
    silent = (taught.features == 0).all(1).float().mean()  # no features have no direction
    torch.testing.assert_close(terms[1:], torch.stack([0 * silent, 0 * silent, silent]))
    torch.testing.assert_close(total, terms @ torch.tensor([1.0, 0.5, 0.1, 0.1]))
    torch.testing.assert_close(terms[0], (taught.depth - 2).abs().mean())
    other = BinnedDepth(taught.depth + 1, taught.centres + 0.5, -taught.features)
    _, terms = loss(other, torch.full((1, 1, 32, 32), 2.0), picture)
    torch.testing.assert_close(terms[1:], torch.stack([1 + 0 * silent, 0.5 + 0 * silent, 2 - silent]))


def test_the_teacher_learns_nothing():
    teacher, student = make_network(features=["camera"]), make_network()
    before = {name: x.clone() for name, x in teacher.state_dict().items()}
    total, _ = DistillationLoss(teacher)(
        student(torch.randn(2, 2, 32, 32)), torch.ones(2, 1, 32, 32), torch.rand(2, 3, 32, 32)
    )
    total.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(before[name], x) for name, x in teacher.state_dict().items())
    for name, parameter in student.named_parameters():
        assert parameter.grad is not None, name


def test_refusals():
    with pytest.raises(ValueError, match="bins must be at least 2, got 1"):
        AdaptiveBinsNet(4, 6.0, 1)
