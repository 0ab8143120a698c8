"""Lags and level differences of attention whose matches are known."""

import pytest
import torch
from torch import nn

from binaural import BinauralAttentionDepthNet, BinauralCrossAttention, UNet
from binaural.visualize.matches import AttentionWeights, attention_at, levels_of_cells, match

STEPS = 12


def delayed_ears(delay: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Maps [1, 16, 3, STEPS]: every left step is unlike all others, the right ear hears it `delay` later."""
    generator = torch.Generator().manual_seed(0)
    sound = torch.randn(1, 16, 3, STEPS + 2 * abs(delay), generator=generator)
    start = abs(delay)
    return sound[..., start : start + STEPS], sound[..., start - delay : start - delay + STEPS]


def sharp_attention() -> BinauralCrossAttention:
    """Attention with one head, all of whose weight is on equal features: layer norm makes all as long."""
    attention = BinauralCrossAttention(16, heads=1)
    with torch.no_grad():
        for project in (attention.project_left, attention.project_right):
            project.weight[:16] = 30 * torch.eye(16)
            project.bias.zero_()
    return attention


@pytest.mark.parametrize("delay", [-2, 0, 3])
def test_a_known_delay_is_the_expected_lag(delay):
    """The right ear hears everything `delay` steps after the left: the lag is positive if later."""
    weights = AttentionWeights(*(w.detach() for w in sharp_attention().weights(*delayed_ears(delay))))
    left, right = weights.expected_lags()
    in_both = slice(abs(delay), STEPS - abs(delay))
    torch.testing.assert_close(left[:, in_both], torch.full_like(left[:, in_both], delay))
    torch.testing.assert_close(right[:, in_both], torch.full_like(right[:, in_both], delay))
    for share in weights.lag_distributions():
        assert share.shape == (3, 2 * STEPS - 1)
        torch.testing.assert_close(share.sum(1), torch.ones(3))
        assert (share.argmax(1) == STEPS - 1 + delay).all()
        assert (share.max(1).values > (STEPS - abs(delay)) / STEPS - 1e-3).all()


def test_ears_swapped_the_lag_changes_its_sign():
    left, right = delayed_ears(2)
    attention = sharp_attention()
    as_is = AttentionWeights(*attention.weights(left, right)).lag_distributions()
    swapped = AttentionWeights(*attention.weights(right, left)).lag_distributions()
    torch.testing.assert_close(swapped[0], as_is[1].flip(-1))
    torch.testing.assert_close(swapped[1], as_is[0].flip(-1))


@pytest.mark.parametrize("options", [{}, {"similarity": "separate"}, {"max_lag": 2}, {"lag_bias": None}])
def test_weights_are_those_that_the_attention_reads_with(options):
    """What is read is the weights times the values."""
    torch.manual_seed(0)
    attention = BinauralCrossAttention(16, heads=2, **options)
    for parameter in (attention.gain_left, attention.gain_right):
        nn.init.ones_(parameter)
    if attention.lag_bias is not None:
        nn.init.normal_(attention.lag_bias)
    left, right = torch.randn(2, 2, 16, 3, STEPS)
    weights_left, weights_right = attention.weights(left, right)
    assert weights_left.shape == weights_right.shape == (6, 2, STEPS, STEPS)
    torch.testing.assert_close(weights_left.sum(-1), torch.ones(6, 2, STEPS))
    torch.testing.assert_close(weights_right.sum(-2), torch.ones(6, 2, STEPS))
    _, (v_left, v_right), *_ = attention._project_ears(left, right)
    read_left = torch.einsum("rhij,rjhc->rihc", weights_left, v_right).reshape(2, 3, STEPS, 16)
    read_right = torch.einsum("rhij,rihc->rjhc", weights_right, v_left).reshape(2, 3, STEPS, 16)
    with torch.no_grad():
        out_left, out_right = attention(left, right)
    torch.testing.assert_close(out_left, left + read_left.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(out_right, right + read_right.permute(0, 3, 1, 2), rtol=1e-4, atol=1e-5)


def test_without_preference_all_that_may_match_matches_alike():
    weights = AttentionWeights(*torch.rand(2, 3, 2, STEPS, STEPS), max_lag=1)
    none = weights.without_preference()
    assert none.left_attends.shape == (3, 2, STEPS, STEPS)
    torch.testing.assert_close(none.left_attends[0, 0, 5, 4:7], torch.full((3,), 1 / 3))
    torch.testing.assert_close(none.right_attends[0, 0, :2, 0], torch.full((2,), 1 / 2))
    assert none.left_attends[0, 0, 5, 7] == none.right_attends[0, 0, 7, 5] == 0
    left, right = none.expected_lags()
    torch.testing.assert_close(left[0, [0, 5, -1]], torch.tensor([0.5, 0.0, -0.5]))
    torch.testing.assert_close(right[0, [0, 5, -1]], torch.tensor([-0.5, 0.0, 0.5]))


def test_level_difference_is_between_what_was_matched():
    """The left ear 6 dB louder and 2 steps earlier, on a level that falls by 3 dB a step."""
    level = -3.0 * torch.arange(STEPS).expand(3, STEPS)
    left, right = level, level + 2 * 3.0 - 6.0
    weights = AttentionWeights(*sharp_attention().weights(*delayed_ears(2)))
    at_left, at_right = weights.level_differences(left, right)
    torch.testing.assert_close(at_left[:, 2:-2], torch.full((3, STEPS - 4), 6.0), rtol=0, atol=0.02)
    torch.testing.assert_close(at_right[:, 2:-2], torch.full((3, STEPS - 4), 6.0), rtol=0, atol=0.02)


def test_power_is_averaged_not_decibels():
    decibels = torch.tensor([[0.0, -100.0], [-100.0, -100.0]]).expand(2, 2, 2)
    assert levels_of_cells(decibels, 2).shape == (2, 1, 1)
    torch.testing.assert_close(levels_of_cells(decibels, 2), torch.full((2, 1, 1), -6.0206))


@pytest.mark.parametrize("level", [2, 3])
def test_matching_of_a_network_has_the_size_of_its_level(level):
    network = BinauralAttentionDepthNet(4, attention_levels=(2, 3), max_lag=3).eval()
    weights = match(network, torch.rand(2, 32, 32), level)
    size = 32 // 2 ** (level - 1)
    assert weights.left_attends.shape == (size, 4, size, size)
    assert weights.max_lag == 3
    assert not any(attention._forward_pre_hooks for attention in network.attention.values())


def test_what_cannot_be_matched_is_refused():
    network = BinauralAttentionDepthNet(8, attention_levels=(3, 4), scope="plane").eval()
    with pytest.raises(ValueError, match="at level 2; levels with attention: 3, 4"):
        attention_at(network, 2)
    with pytest.raises(ValueError, match="levels with attention: none"):
        attention_at(UNet(4), 2)
    with pytest.raises(ValueError, match="scope 'time', this attention has 'plane'"):
        match(network, torch.rand(2, 32, 32), 3)
