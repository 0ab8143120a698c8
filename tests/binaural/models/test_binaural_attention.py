import copy
import json

import pytest
import torch
from torch import nn

from binaural import BinauralAttentionDepthNet, UNet, load_network
from binaural.features import channel_names, swap_ears
from binaural.models.adaptive_bins import AdaptiveBinsNet
from binaural.models.base_residual import BaseResidualNet
from binaural.models.blocks import Fusion
from binaural.models.unet_pix2pix import UNetPix2Pix


def count(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def mirror_ears(network: BinauralAttentionDepthNet) -> None:
    """Give the right ear the left ear's weights, and let fusion treat both alike."""
    network.encoder_right.load_state_dict(network.encoder_left.state_dict())
    for attention in network.attention.values():
        attention.norm_right.load_state_dict(attention.norm_left.state_dict())
        attention.project_right.load_state_dict(attention.project_left.state_dict())
        nn.init.ones_(attention.gain_left)
        nn.init.ones_(attention.gain_right)
    for fusion in network.fusion:
        half = fusion.conv.weight.shape[1] // 2
        with torch.no_grad():
            fusion.conv.weight[:, half:] = fusion.conv.weight[:, :half]


@pytest.mark.parametrize(
    "network",
    [
        BinauralAttentionDepthNet(8, max_depth=7.0),
        BinauralAttentionDepthNet(8, attention_levels=(), max_depth=7.0),
        BinauralAttentionDepthNet(8, scope="plane", similarity="separate", max_depth=7.0),
        BinauralAttentionDepthNet(8, ear_width=0.63, max_lag=4, max_depth=7.0),
        BinauralAttentionDepthNet(8, matching="group_correlation", max_depth=7.0),
        BinauralAttentionDepthNet(8, matching="concatenation", max_lag=2, max_depth=7.0),
        BinauralAttentionDepthNet(8, view_levels=(1, 2, 3, 4, 5), max_depth=7.0),
        BinauralAttentionDepthNet(8, (3, 5), view_levels=(3,), skip_levels=(3,), max_depth=7.0),
        BinauralAttentionDepthNet(8, (2, 5), view_levels=(2,), skip_levels=(1, 3), max_depth=7.0),
        BinauralAttentionDepthNet(8, (5,), symmetric=True, skip_levels=(), max_depth=7.0),
        UNet(8, max_depth=7.0),
        UNet(8, view_levels=(2, 3), max_depth=7.0),
        UNet(8, view_levels=(2, 3), skip_levels=(3, 4), max_depth=7.0),
    ],
)
@pytest.mark.parametrize("shape", [(2, 2, 32, 32), (2, 2, 48, 37)])
def test_depth_in_metres_within_range(network, shape):
    depth = network(torch.randn(shape) * 100)
    assert depth.shape == (shape[0], 1, *shape[2:])
    assert depth.min() >= 0
    assert depth.max() <= 7.0
    depth.mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        # A gain of 0 hides what lies behind it; else all has a say.
        if not name.startswith("attention"):
            assert parameter.grad.any(), name


def test_ears_are_treated_alike():
    """With the same weights for both ears, swapping them changes nothing: no path confuses left and right."""
    network = BinauralAttentionDepthNet(8).eval()
    mirror_ears(network)
    x = torch.randn(1, 2, 32, 32)
    torch.testing.assert_close(network(x), network(x.flip(1)))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("autocast", "tolerance"), [(False, 1e-5), (True, 3e-2)])
def test_fusion_is_the_convolution_of_the_concatenation(layout, autocast, tolerance):
    """Values, dtype and gradients, in float32 and under autocast."""
    torch.manual_seed(0)
    fusion = Fusion(8, 12)
    ears = [torch.randn(2, 8, 5, 7).to(memory_format=layout).requires_grad_() for _ in range(2)]
    leaves = [*ears, *fusion.parameters()]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        fused = fusion(*ears)
        plain = fusion.norm(fusion.conv(torch.cat(ears, dim=1))).relu()
    assert fused.dtype == plain.dtype == (torch.bfloat16 if autocast else torch.float32)
    gradient = torch.randn(plain.shape, dtype=plain.dtype)
    results = [fused, *torch.autograd.grad(fused, leaves, gradient)]
    expected = [plain, *torch.autograd.grad(plain, leaves, gradient)]
    for result, plain_result in zip(results, expected, strict=True):
        error = torch.linalg.vector_norm((result - plain_result).float())
        assert error <= tolerance * torch.linalg.vector_norm(plain_result.float())


def test_widths_of_the_design():
    network = BinauralAttentionDepthNet(64)
    assert [level[0].out_channels for level in network.encoder_left.levels] == [64, 128, 256, 512, 512]
    assert [fusion.conv.out_channels for fusion in network.fusion] == [64, 128, 256, 512, 512]
    assert [network.attention[level].heads for level in "2345"] == [4, 4, 8, 8]


def test_lean_ears_cost_no_more_than_one_encoder():
    """At ear_width 0.63 the convolutions of both ears have about the parameters of the U-Net's encoder."""
    ears, full = BinauralAttentionDepthNet(64, ear_width=0.63), UNet(64)
    assert count(ears.encoder_left) + count(ears.encoder_right) < 1.02 * count(full.encoder)


def test_attention_at_gain_zero_is_the_network_without():
    """Attention starts switched off, so that training starts from plain fusion."""
    torch.manual_seed(0)
    network = BinauralAttentionDepthNet(8).eval()
    without = BinauralAttentionDepthNet(8, attention_levels=()).eval()
    without.load_state_dict({k: v for k, v in network.state_dict().items() if not k.startswith("attention")})
    x = torch.randn(1, 2, 32, 32)
    torch.testing.assert_close(network(x), without(x))


@pytest.mark.parametrize(
    "network", [BinauralAttentionDepthNet(8, (2,), skip_levels=(2, 4)), UNet(8, skip_levels=(2, 4))]
)
def test_the_decoder_sees_its_skips_and_no_others(network):
    x = torch.randn(1, 2, 32, 32)
    seen: list[torch.Tensor] = []
    network.decoder.register_forward_pre_hook(lambda _, arguments: seen.extend(arguments[0]))
    network(x)
    assert [level.shape[1] for level in seen] == [0, 16, 0, 64, 64]
    assert [level.shape[2:] for level in seen] == [(32 >> i, 32 >> i) for i in range(5)]
    blocks = [(up[0].in_channels, up[0].out_channels, up[3].out_channels) for up in network.decoder.ups]
    assert blocks == [(128, 64, 32), (32, 16, 16), (32, 16, 8), (8, 8, 8)]


def test_a_level_that_only_the_view_transform_reads_is_kept_from_the_decoder():
    network = UNet(8, view_levels=(2,), skip_levels=(3,)).eval()
    kept: list[torch.Tensor] = []
    network.encoder.register_forward_hook(lambda _module, _arguments, features: kept.extend(features))
    depth = network(torch.randn(1, 2, 32, 32))
    assert [level.shape[1] for level in kept] == [0, 16, 32, 0, 64]
    assert depth.shape == (1, 1, 32, 32)


@pytest.mark.parametrize("argument", ["view_levels", "skip_levels"])
@pytest.mark.parametrize("kind", [BinauralAttentionDepthNet, UNet])
def test_networks_from_before_an_argument_load(kind, argument, tmp_path):
    network = kind(8).eval()
    network.save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    del config["arguments"][argument]
    path.write_text(json.dumps(config))
    x = torch.randn(1, 2, 64, 64)
    torch.testing.assert_close(load_network(tmp_path)(x), network(x), rtol=0, atol=0)


FEATURES = ("ipd", "magnitude", "gcc_phat")


def test_swapped_ears_are_the_other_ears_input():
    """Whatever it hears: with the same weights for both ears, swapping them changes nothing."""
    network = BinauralAttentionDepthNet(8, features=FEATURES).eval()
    mirror_ears(network)
    x = torch.randn(1, 5, 32, 32)
    torch.testing.assert_close(network(x), network(swap_ears(x, FEATURES)))


@pytest.mark.parametrize(
    "network",
    [
        BinauralAttentionDepthNet(8, (3, 5), lag_bias=2),
        BinauralAttentionDepthNet(8, (3, 5), symmetric=True, view_levels=(3,), skip_levels=(3,)),
        BinauralAttentionDepthNet(8, matching="concatenation", features=FEATURES),
        UNet(8, 5.0),
        UNetPix2Pix(4, 5.0, 5, FEATURES),
        BaseResidualNet(8, 5.0, FEATURES),
        AdaptiveBinsNet(8, 5.0, 16, ["camera"]),
    ],
)
def test_save_and_load(network, tmp_path):
    network.save_pretrained(tmp_path / "net", {"input": {"image_size": 32}})
    loaded = load_network(tmp_path / "net")
    assert type(loaded) is type(network)
    assert not loaded.training
    x = torch.randn(1, len(channel_names(network.features)), 32, 32)
    depth = loaded(x)
    torch.testing.assert_close(depth, network.eval()(x), rtol=0, atol=0)
    assert depth.shape == (1, 1, 32, 32)
    assert 0 <= depth.min() <= depth.max() <= network.arguments["max_depth"]
    assert json.loads((tmp_path / "net" / "config.json").read_text())["input"] == {"image_size": 32}


def test_load_refuses(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json not found"):
        load_network(tmp_path)
    UNet(8).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="describes a UNet, expected a BinauralAttentionDepthNet"):
        BinauralAttentionDepthNet.from_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match="does not fit"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text('{"network": "UNet"}')
    with pytest.raises(ValueError, match="expected the keys"):
        load_network(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        load_network(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_channels": 0}, "base_channels must be at least 1, got 0"),
        ({"attention_levels": (0, 2)}, "attention_levels must be different levels from 1 to 5"),
        ({"attention_levels": (2, 2)}, "attention_levels must be different levels from 1 to 5"),
        ({"skip_levels": (4, 5)}, r"skip_levels must be different levels from 1 to 4, got \(4, 5\)"),
        ({"skip_levels": (3,)}, r"attention at \(2, 4\) has no effect"),
        (
            {"skip_levels": (2, 4), "view_levels": (3,), "attention_levels": (4,)},
            "skip_levels must include 3, the level that view transforms add to",
        ),
        ({"max_depth": -1.0}, "max_depth must be positive"),
        ({"ear_width": 0}, "ear_width must be positive"),
        ({"matching": "dtw"}, "matching must be one of"),
        ({"matching": "concatenation", "scope": "plane"}, "matching 'concatenation' needs scope 'time'"),
        ({"features": ["camera"]}, "must be of sound"),
        ({"features": ["mel"]}, "features must be different ones of"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        BinauralAttentionDepthNet(**arguments)


@pytest.mark.parametrize("shape", [(2, 32, 32), (1, 3, 32, 32), (1, 2, 8, 32)])
def test_input_is_checked(shape):
    with pytest.raises(ValueError, match=r"the input must be \[B, 2, H, W\]"):
        UNet(8)(torch.randn(shape))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"symmetric": True, "view_levels": (1, 3)},
        {"symmetric": True, "view_levels": (3,), "skip_levels": (3,), "attention_levels": (3, 5)},
    ],
)
def test_compiles_whole_and_once(options):
    """No graph break, no recompilation, and what is computed stays the same up to rounding."""
    torch.manual_seed(0)
    network = BinauralAttentionDepthNet(4, **options).to(memory_format=torch.channels_last)
    exact = copy.deepcopy(network).double()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 2, 16, 16).to(memory_format=torch.channels_last)
    gradients = []
    for run, module, heard in ((network, network, x), (compiled, network, x), (exact, exact, x.double())):
        run(heard).square().mean().backward()
        gradients.append([p.grad for p in module.parameters()])
        module.zero_grad(set_to_none=True)
    eager, whole, expected = (torch.cat([g.flatten() for g in all_of_them]) for all_of_them in gradients)
    error, allowed = ((gradient - expected).norm() for gradient in (whole, eager))
    assert error <= 2 * allowed + 1e-6 * expected.norm()
    with torch.compiler.set_stance("fail_on_recompile"):
        for _ in range(2):
            compiled(x).square().mean().backward()
