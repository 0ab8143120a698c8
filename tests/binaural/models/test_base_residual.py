import torch

from binaural.models.base_residual import BaseAndResidual, BaseResidualLoss, BaseResidualNet, lowpass


def test_depth_is_the_sum_within_range():
    torch.manual_seed(0)
    network = BaseResidualNet(4, max_depth=5.0)
    torch.nn.init.normal_(network.residual_head.weight, std=30.0)
    x = torch.randn(2, 2, 32, 32)
    network.eval()
    depth = network(x)
    for module in network.modules():  # the same function, with both parts shown
        module.training = module is network
    base, residual = network(x)
    assert residual.min() < 0 < residual.max()
    torch.testing.assert_close(depth, (base + residual).clamp(0, 5))
    assert depth.min() == 0


def test_at_first_the_base_is_all():
    assert BaseResidualNet(4)(torch.randn(2, 2, 32, 32)).residual.abs().max() == 0


def test_every_parameter_learns():
    network, loss = BaseResidualNet(4, max_depth=5.0), BaseResidualLoss()
    torch.nn.init.normal_(network.residual_head.weight)
    loss(network(torch.randn(2, 2, 32, 32)), 5 * torch.rand(2, 1, 32, 32))[0].backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_the_loss_is_its_formula():
    base, residual = torch.rand(2, 1, 16, 16), torch.rand(2, 1, 16, 16) - 0.5
    target = torch.rand(2, 1, 16, 16)
    target[0, 0, 3:9] = 0
    target[1, 0, 0, 0], target[1, 0, 0, 1] = torch.nan, torch.inf
    loss = BaseResidualLoss(2.0, 3.0, 4.0, blur=1 / 8)
    total, terms = loss(BaseAndResidual(base, residual), target)
    valid = torch.isfinite(target) & (target > 0)
    clean = torch.where(valid, target, 0.0)
    coarse = lowpass(clean, 2.0)
    expected = torch.stack(
        [
            (clean - base - residual)[valid].abs().mean(),
            (base - coarse)[valid].abs().mean(),
            residual[valid].abs().mean(),
        ]
    )
    torch.testing.assert_close(terms, expected)
    torch.testing.assert_close(total, expected @ torch.tensor([2.0, 3.0, 4.0]))
    assert loss.terms == ("recon", "base", "residual")


def test_pixels_without_measurement_never_reach_the_lowpass():
    """A constant stays that constant, however much of it is missing."""
    depth = torch.full((1, 1, 32, 32), 4.0)
    depth[torch.rand(depth.shape) < 0.6] = 0
    torch.testing.assert_close(lowpass(depth, 2.0), torch.full_like(depth, 4.0))
    assert lowpass(torch.zeros(1, 1, 8, 8), 2.0).abs().max() == 0


def test_the_lowpass_keeps_the_layout_and_loses_detail():
    ramp = torch.linspace(1, 3, 64).expand(1, 1, 64, 64)
    stripes = 0.5 * (torch.arange(64) % 2 * 2 - 1)
    found = lowpass(ramp + stripes, 4.0)[..., 16:-16]
    torch.testing.assert_close(found, ramp[..., 16:-16], atol=0.02, rtol=0)


def test_without_a_valid_pixel_nothing_is_learned():
    base = torch.rand(1, 1, 16, 16, requires_grad=True)
    total, _ = BaseResidualLoss()(BaseAndResidual(base, base), torch.zeros(1, 1, 16, 16))
    total.backward()
    assert float(total.detach()) == 0
    assert base.grad.abs().max() == 0
