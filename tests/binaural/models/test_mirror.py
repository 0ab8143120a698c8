import copy

import pytest
import torch
from torch import nn

from binaural import BinauralAttentionDepthNet, load_network
from binaural.features import channel_names, swap_ears
from binaural.models.attention import BinauralCrossAttention
from binaural.models.blocks import Fusion
from binaural.models.cost_volumes import Concatenation, GroupCorrelation
from binaural.models.ear_pairs import tie_weights
from binaural.models.mirror import (
    ExchangedFusion,
    MirrorConv2d,
    MirrorDoubleConv,
    MirrorFusion,
    MirrorViewTransform,
    mirror_weight,
)
from binaural.models.view_transform import ViewTransforms

FEATURES = ("ipd", "magnitude", "gcc_phat")


def mirror(x):
    """Of a map with two halves: they exchange their places, each mirrored."""
    return torch.cat(x.chunk(2, dim=1)[::-1], dim=1).flip(-1)


def randomise(module):
    """Random numbers for what starts at 0, such as gains."""
    for parameter in module.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.5)
    return module


def test_the_weights_of_both_groups_of_outputs():
    torch.manual_seed(0)
    parts, begin, weight = [2, 4, 6], 0, torch.randn(3, 12, 3, 5)
    both = mirror_weight(weight, parts)
    torch.testing.assert_close(both[:3], weight, rtol=0, atol=0)
    for part in parts:
        own, other = weight[:, begin : begin + part].chunk(2, dim=1)
        mirrored = torch.cat([other, own], dim=1).flip(-1)
        torch.testing.assert_close(both[3:, begin : begin + part], mirrored, rtol=0, atol=0)
        begin += part


def test_mirrored_convolutions_keep_their_memory_format_and_dtype():
    """Channels-last weights and inputs give channels-last outputs; autocast leaves float64 alone."""
    conv, x = MirrorConv2d([6, 2], 4).to(memory_format=torch.channels_last), torch.randn(2, 8, 5, 6)
    x = x.to(memory_format=torch.channels_last)
    assert conv(x).is_contiguous(memory_format=torch.channels_last)
    assert mirror_weight(conv.weight, conv.parts).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
        y = conv.double()(x.double())
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, conv(x.double()))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("shape", [(2, 32, 32), (3, 48, 37)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scope": "plane"},
        {"similarity": "separate", "max_lag": 3},
        {"matching": "group_correlation"},
        {"matching": "concatenation"},
        {"features": FEATURES, "ear_width": 0.63, "view_levels": (3,)},
        {"attention_levels": ()},
        {"view_levels": (1, 2, 3, 4, 5)},
        {"view_levels": (3,), "skip_levels": (3,), "attention_levels": (3, 5)},
    ],
)
def test_swapped_ears_mirror_the_depth(options, shape, training, layout):
    torch.manual_seed(0)
    network = randomise(BinauralAttentionDepthNet(8, symmetric=True, **options)).to(memory_format=layout)
    x = torch.randn(shape[0], len(channel_names(network.features)), *shape[1:]).to(memory_format=layout)
    for _ in range(20):
        network(x)  # gives the batch norms running statistics
    with torch.no_grad():
        depth = network.train(training)(x)
        swapped = network(swap_ears(x, network.features))
    assert (depth - depth.flip(-1)).std() > 0.01  # metres
    torch.testing.assert_close(swapped, depth.flip(-1), rtol=0, atol=1e-4)


def test_a_network_with_weights_for_each_ear_does_not_mirror():
    torch.manual_seed(0)
    network = randomise(BinauralAttentionDepthNet(8))
    x = torch.randn(2, 2, 32, 32)
    assert (network(x.flip(1)) - network(x).flip(-1)).std() > 0.1


@pytest.mark.parametrize("parts", [[4], [6, 2]])
def test_convolution_commutes_with_the_mirror(parts):
    conv = MirrorConv2d(parts, 8)
    maps = [torch.randn(2, part, 5, 7) for part in parts]
    y = conv(torch.cat(maps, dim=1))
    assert y.shape == (2, 8, 5, 7)
    torch.testing.assert_close(conv(torch.cat([mirror(x) for x in maps], dim=1)), mirror(y))
    assert conv.weight.numel() == nn.Conv2d(sum(parts), 8, 3, bias=False).weight.numel() // 2


def test_convolution_takes_what_a_plain_one_takes():
    conv, x = MirrorConv2d([4], 6).to(memory_format=torch.channels_last), torch.randn(2, 4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(x).dtype == torch.bfloat16
    assert conv.double()(x.double()).dtype == torch.float64
    with pytest.raises(RuntimeError, match="same"):
        conv(x)


def test_block_commutes_with_the_mirror_and_starts_like_a_plain_one():
    torch.manual_seed(0)
    block = MirrorDoubleConv([32, 64], 64, 48)
    plain = nn.Conv2d(96, 48, 3, bias=False)
    assert float(block[0].weight.detach().std()) == pytest.approx(
        float(plain.weight.detach().std()), rel=0.05
    )
    maps = [torch.randn(2, channels, 5, 7) for channels in (32, 64)]
    y = block(torch.cat(maps, dim=1))
    torch.testing.assert_close(block(torch.cat([mirror(x) for x in maps], dim=1)), mirror(y))


def test_fusion_sees_the_right_ear_in_the_mirror():
    fusion = MirrorFusion(6, 8)
    left, right = torch.randn(2, 2, 6, 5, 7)
    torch.testing.assert_close(fusion(right, left), mirror(fusion(left, right)))


def test_exchanged_fusion_is_fusion_of_both_orders():
    torch.manual_seed(0)
    exchanged, plain = ExchangedFusion(6, 8).eval(), Fusion(6, 8).eval()
    plain.load_state_dict(exchanged.state_dict())
    left, right = torch.randn(2, 3, 6, 5, 7)
    expected = torch.cat([plain(left, right), plain(right, left)])
    torch.testing.assert_close(exchanged(left, right), expected)
    torch.testing.assert_close(exchanged(torch.cat([left, right])), expected)


@pytest.mark.parametrize("compiled", [False, True])
def test_view_transform_stays_channels_last(compiled):
    """Where sizes differ and where not; inductor may choose layouts of its own on the way."""
    torch.manual_seed(0)
    transforms = ViewTransforms({3: MirrorViewTransform(3, 8, 8)}).to(memory_format=torch.channels_last)
    run = torch.compile(transforms, fullgraph=True, dynamic=False) if compiled else transforms
    for size, heard in ((16, 16), (10, 16), (16, 32)):
        ears = torch.randn(4, 8, heard, heard).to(memory_format=torch.channels_last)
        target = torch.randn(2, 8, size, size).to(memory_format=torch.channels_last).requires_grad_()
        maps = [(), (), (ears,)]
        results = []
        for function in (transforms, run):
            y = function(target, maps)
            results.append([y, *torch.autograd.grad(y.square().sum(), [target, *transforms.parameters()])])
        assert results[0][0].is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(results[1], results[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "module",
    [
        BinauralCrossAttention(8, symmetric=True),
        BinauralCrossAttention(8, symmetric=True, similarity="separate", max_lag=2, lag_bias=2),
        GroupCorrelation(8, 2, 3, symmetric=True),
        Concatenation(8, 3, symmetric=True),
    ],
)
def test_matching_swaps_with_the_ears(module):
    torch.manual_seed(0)
    randomise(module)
    left, right = torch.randn(2, 2, 8, 3, 9)
    read_left, read_right = module(left, right)
    assert not torch.equal(read_left, left)
    (both,) = module(torch.cat([left, right]))
    torch.testing.assert_close(both, torch.cat([read_left, read_right]))
    swapped_right, swapped_left = module(right, left)
    torch.testing.assert_close((swapped_left, swapped_right), (read_left, read_right))


def test_shared_weights_are_saved_once_and_stay_shared(tmp_path):
    torch.manual_seed(0)
    network = randomise(BinauralAttentionDepthNet(8, ear_width=0.63, symmetric=True)).eval()
    names = [name for name, _ in network.named_parameters()]
    assert not any("right" in name for name in [*names, *network.state_dict()])
    network.save_pretrained(tmp_path)
    x = torch.randn(1, 2, 32, 32)
    assigned = BinauralAttentionDepthNet(8, ear_width=0.63, symmetric=True).eval()
    assigned.load_state_dict(network.state_dict(), assign=True)
    for same in (load_network(tmp_path), copy.deepcopy(network), assigned):
        assert same.encoder_right is same.encoder_left
        torch.testing.assert_close(same(x), network(x))
    zeros = {name: torch.zeros_like(value) for name, value in network.state_dict().items() if "gain" in name}
    without = torch.func.functional_call(network, zeros, x)
    for name, value in zeros.items():
        network.state_dict()[name].copy_(value)
    torch.testing.assert_close(without, network(x))


def test_what_is_registered_as_a_parameter_is_not_shared():
    module = nn.Module()
    module.left, module.right = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    with pytest.raises(AssertionError):
        tie_weights(module, "right", "left")


def test_weights_of_a_symmetric_attention_swap_with_the_ears():
    torch.manual_seed(0)
    attention = randomise(BinauralCrossAttention(8, symmetric=True, lag_bias=3))
    bias = attention.bias_of_lags()
    assert bias.shape == (4, 7)
    torch.testing.assert_close(bias, bias.flip(-1))
    left, right = torch.randn(2, 1, 8, 3, 9)
    of_left, of_right = attention.weights(left, right)
    swapped_right, swapped_left = attention.weights(right, left)
    torch.testing.assert_close(swapped_left.transpose(-1, -2), of_left)
    torch.testing.assert_close(swapped_right.transpose(-1, -2), of_right)


def test_odd_channels_are_refused():
    with pytest.raises(ValueError, match=r"even channels, got \[6, 3\] and 8"):
        MirrorConv2d([6, 3], 8)
    with pytest.raises(ValueError, match="base_channels must be even if symmetric, got 7"):
        BinauralAttentionDepthNet(7, symmetric=True)
