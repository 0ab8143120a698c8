import pytest
import torch

from binaural.models.cost_volumes import Concatenation, GroupCorrelation

KINDS = [GroupCorrelation(16, 4, max_lag=2), Concatenation(16, max_lag=2)]


def make_maps(width=6):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 2, 16, 3, width, generator=generator).unbind(0)


def with_gain(module):
    with torch.no_grad():
        module.gain_left.fill_(1.0)
        module.gain_right.fill_(1.0)
    return module


def test_group_correlation_is_its_definition():
    left, right = make_maps()
    module = GroupCorrelation(16, 4, max_lag=2)
    volume = module.volume(left, right)
    assert volume.shape == (2, 4, 5, 3, 6)
    a, b = module.project_left(left), module.project_right(right)
    for lag in range(-2, 3):
        for i in range(6):
            found = volume[:, :, lag + 2, :, i]
            if 0 <= i + lag < 6:
                expected = (a[..., i] * b[..., i + lag]).view(2, 4, 4, 3).mean(2)
            else:
                expected = torch.zeros_like(found)
            torch.testing.assert_close(found, expected)


def test_concatenation_is_a_convolution_of_the_concatenated_volume():
    left, right = make_maps()
    module = Concatenation(16, max_lag=2).eval()
    weight = torch.cat([module.project_left.weight, module.project_right.weight], 1)
    first = torch.zeros(2, 4, 5, 3, 6)
    for lag in range(-2, 3):
        for i in range(6):
            if 0 <= i + lag < 6:
                pair = torch.cat([left[..., i], right[..., i + lag]], 1)[..., None]
                compared = torch.nn.functional.conv2d(pair, weight, module.project_left.bias)
                first[:, :, lag + 2, :, i] = compared[..., 0]
    found = module.volume(left, right)
    # Each frequency row is an image of lags by time.
    expected = torch.stack([module.compare(first[:, :, :, row]) for row in range(3)], 3)
    for lag in range(-2, 3):
        steps = slice(max(0, -lag), 6 - max(0, lag))
        torch.testing.assert_close(found[:, :, lag + 2, :, steps], expected[:, :, lag + 2, :, steps])
    assert found[:, :, 4, :, 4:].abs().max() == 0  # lag 2 has no partner in the last two steps


@pytest.mark.parametrize("module", KINDS)
def test_starts_as_identity(module):
    left, right = make_maps()
    o_left, o_right = module(left, right)
    torch.testing.assert_close(o_left, left, rtol=0, atol=0)
    torch.testing.assert_close(o_right, right, rtol=0, atol=0)


def test_both_ears_read_one_volume():
    """With the same weights for both ears, swapped ears swap what is read, at reversed lags."""
    module = with_gain(GroupCorrelation(16, 4, max_lag=2))
    module.project_right.load_state_dict(module.project_left.state_dict())
    lags = module.read_left.weight.unflatten(1, (4, 5))
    with torch.no_grad():
        module.read_right.weight.copy_(lags.flip(2).flatten(1, 2))
        module.read_right.bias.copy_(module.read_left.bias)
    left, right = make_maps()
    o_left, o_right = module(left, right)
    s_left, s_right = module(right, left)
    torch.testing.assert_close(o_left, s_right)
    torch.testing.assert_close(o_right, s_left)


@pytest.mark.parametrize("module", KINDS)
def test_nothing_further_away_than_the_longest_lag_is_read(module):
    """A change at the right ear's last step reaches the left ear's steps within reach alone."""
    module = with_gain(module).eval()
    left, right = make_maps(12)
    other = right.clone()
    other[..., -1] = right[..., 0]
    changed = (module(left, right)[0] - module(left, other)[0]).abs().amax((0, 1, 2)) > 1e-6
    reach = 2 if isinstance(module, GroupCorrelation) else 3  # the 3 x 3 comparison sees a neighbour
    assert not changed[: 12 - 1 - reach].any()
    assert changed[12 - 1 - 2 :].all()


@pytest.mark.parametrize("module", KINDS)
@pytest.mark.parametrize("width", [1, 2])
def test_maps_shorter_than_the_lags(module, width):
    outputs = with_gain(module)(*make_maps(width))
    assert all(torch.isfinite(o).all() and o.shape[-1] == width for o in outputs)


@pytest.mark.parametrize("module", [GroupCorrelation(16, 4, 2), Concatenation(16, 2)])
def test_every_parameter_gets_a_gradient(module):
    sum(o.square().sum() for o in with_gain(module)(*make_maps())).backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_refusals():
    with pytest.raises(ValueError, match="divisible by heads, the groups, got 10 and 4"):
        GroupCorrelation(10, 4)
    with pytest.raises(ValueError, match="max_lag must be at least 0, got -1"):
        Concatenation(16, -1)
