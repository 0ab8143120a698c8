"""Networks with PyTorch's tools for modules: hooks, pruning, parametrizations, other norms, export.

A fused operation must give what its modules give, and the modules are called wherever calling them does more.
"""

import copy

import numpy as np
import pytest
import torch
from torch import Tensor, func, nn
from torch.nn.utils import parametrizations, prune
from torch.optim.swa_utils import AveragedModel, update_bn

from binaural import BinauralAttentionDepthNet, UNet
from binaural.models.blocks import DoubleConv, Fusion, NoFusion
from binaural.models.fused_layers import is_plain
from binaural.models.mirror import ExchangedFusion, MirrorDoubleConv, MirrorFusion
from binaural.training.activations import checkpoint_activations

LEVELS = {"attention_levels": (3, 5), "skip_levels": (3,), "view_levels": (3,)}
layouts = pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])


def network(**options) -> BinauralAttentionDepthNet:
    """A small network whose every weight has an effect: no gain is 0."""
    torch.manual_seed(0)
    net = BinauralAttentionDepthNet(4, max_depth=3.0, **{**LEVELS, **options})
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return net


NETWORKS = {
    "symmetric": lambda: network(symmetric=True),
    "two encoders": network,
    "cost volume": lambda: network(matching="concatenation"),
    "U-Net": lambda: UNet(4, view_levels=(3,)),
}
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)


def run(net: nn.Module, *inputs: Tensor) -> list[Tensor]:
    """Output, gradients and buffers."""
    net.zero_grad()
    y = net(*inputs)
    (y * torch.linspace(0, 1, y.shape[-1])).sum().backward()
    gradients = [p.grad for p in net.parameters() if p.grad is not None]
    return [y.detach(), *gradients, *(b.clone() for b in net.buffers())]


def assert_same(net: nn.Module, plain: nn.Module, *inputs: Tensor) -> None:
    for ours, expected in zip(run(net, *inputs), run(plain, *inputs), strict=True):
        assert_near(ours, expected)


def assert_near(ours: Tensor, expected: Tensor) -> None:
    """By the norm: single elements differ by rounding, which small batches amplify in the batch norms."""
    assert ours.shape == expected.shape
    difference = float((ours.double() - expected.double()).norm())
    assert difference <= 0.01 * float(expected.double().norm()) + 1e-4


def leaves(net: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in net.named_modules() if not list(module.children())}


@layouts
@every_network
def test_hooks_fire_once_and_change_nothing(make, layout):
    net = make().to(memory_format=layout)
    hooked, fired = copy.deepcopy(net), dict.fromkeys(leaves(net), 0)

    for name, module in leaves(hooked).items():

        def count(*_, name=name):
            fired[name] += 1

        module.register_forward_hook(count)
    x = torch.rand(2, 2, 32, 32).to(memory_format=layout)
    assert_same(hooked, net, x)
    # Cost volumes are read once for each ear.
    assert {name: n for name, n in fired.items() if n != 1 and not name.startswith("attention.")} == {}
    assert all(fired.values())


def test_hooks_of_blocks_and_full_backward_hooks_fire():
    net, fired = network(symmetric=True).train(), set()
    expected = run(copy.deepcopy(net), x := torch.rand(2, 2, 32, 32))
    for name, module in net.named_modules():
        module.register_full_backward_hook(lambda *_, name=name: fired.add(name))
    for ours, wanted in zip(run(net, x), expected, strict=True):
        assert_near(ours, wanted)
    # Containers are not called, and levels without a skip connection have no gradient.
    called = {
        name
        for name, module in net.named_modules()
        if type(module) not in (nn.ModuleList, nn.ModuleDict, NoFusion)
    }
    assert called - fired <= {"", "view_transforms", "encoder_left", "decoder"}


def test_global_hooks_fire():
    fired = []
    handle = nn.modules.module.register_module_forward_hook(lambda module, *_: fired.append(type(module)))
    try:
        DoubleConv(2, 4)(torch.rand(1, 2, 4, 4))
    finally:
        handle.remove()
    assert fired.count(nn.BatchNorm2d) == fired.count(nn.ReLU) == 2


def test_what_is_plain():
    norm = nn.BatchNorm2d(2)
    assert is_plain(norm, nn.BatchNorm2d)
    handle = norm.register_forward_pre_hook(lambda *_: None)
    assert not is_plain(norm, nn.BatchNorm2d)
    handle.remove()
    assert is_plain(norm, nn.BatchNorm2d)
    norm.forward = lambda x: x
    assert not is_plain(norm, nn.BatchNorm2d)
    assert not is_plain(nn.SyncBatchNorm(2), nn.BatchNorm2d)
    assert not is_plain(parametrizations.weight_norm(nn.Conv2d(2, 2, 1)), nn.Conv2d)


BLOCKS = {
    "DoubleConv": lambda: (DoubleConv(4, 6), (torch.rand(2, 4, 8, 8),)),
    "MirrorDoubleConv": lambda: (MirrorDoubleConv([4], 6, 8), (torch.rand(2, 4, 8, 8),)),
    "Fusion": lambda: (Fusion(4, 6), (torch.rand(2, 4, 8, 8), torch.rand(2, 4, 8, 8))),
    "MirrorFusion": lambda: (MirrorFusion(4, 6), (torch.rand(4, 4, 8, 8),)),
    "ExchangedFusion": lambda: (ExchangedFusion(4, 6), (torch.rand(4, 4, 8, 8),)),
    "attention": lambda: (network(symmetric=True), (torch.rand(2, 2, 32, 32),)),
    "two ears": lambda: (network(similarity="separate"), (torch.rand(2, 2, 32, 32),)),
}
CHANGES = {
    "prune": (lambda module: prune.random_unstructured(module, "weight", 0.5), "weight_orig"),
    "weight_norm": (parametrizations.weight_norm, "parametrizations.weight.original0"),
    "weight_norm, a hook": (nn.utils.weight_norm, "weight_g"),
    "spectral_norm": (parametrizations.spectral_norm, None),
    "spectral_norm, a hook": (nn.utils.spectral_norm, None),
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated")
@pytest.mark.parametrize(("change", "trained"), CHANGES.values(), ids=CHANGES)
@pytest.mark.parametrize("make", BLOCKS.values(), ids=BLOCKS)
def test_changed_weights_are_used(make, change, trained):
    """Against the same block with the changed weights as parameters."""
    torch.manual_seed(0)
    block, inputs = make()
    changed = copy.deepcopy(block)
    for name, module in leaves(changed).items():
        if not hasattr(module, "weight") or isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            continue
        change(module)
        module.eval()  # in training, spectral norm iterates at each call
        with torch.no_grad():
            if trained is not None:  # the weight is proportional to it
                module.get_parameter(trained).mul_(2)
            for hook in module._forward_pre_hooks.values():
                hook(module, None)
            block.get_submodule(name).weight.copy_(module.weight)
            if module._forward_pre_hooks:
                module.weight = torch.full_like(module.weight, torch.nan)  # until the module is called
    torch.testing.assert_close(changed(*inputs), block(*inputs), rtol=1e-3, atol=1e-4)
    changed(*inputs).sum().backward()
    assert trained is None or all(p.grad is not None for n, p in changed.named_parameters() if trained in n)


@every_network
def test_running_statistics_of_averaged_weights(make):
    """update_bn sets the momentum to None: the statistics are averages over all batches."""
    averaged = AveragedModel(make().to(memory_format=torch.channels_last))
    batches = [torch.rand(2, 2, 32, 32) for _ in range(3)]
    update_bn(batches, averaged)
    for norm in averaged.modules():
        if isinstance(norm, nn.BatchNorm2d):
            assert norm.momentum == 0.1
            assert int(norm.num_batches_tracked) == len(batches)
    # The statistics are those of modules that are called.
    called = copy.deepcopy(averaged)
    for module in called.modules():
        module.register_forward_hook(lambda *_: None)
    update_bn(batches, called)
    for ours, expected in zip(averaged.buffers(), called.buffers(), strict=True):
        assert_near(ours, expected)


def replace_norms(net: nn.Module, make) -> nn.Module:
    for module in list(net.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, make(child.num_features))
    return net


class Frozen(nn.Module):
    """A norm with constant statistics, as detection networks have."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("scale", torch.full((channels, 1, 1), 1.5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


NORMS = {
    "momentum=None": lambda n: nn.BatchNorm2d(n, momentum=None),
    "track_running_stats=False": lambda n: nn.BatchNorm2d(n, track_running_stats=False),
    "affine=False": lambda n: nn.BatchNorm2d(n, affine=False),
    "GroupNorm": lambda n: nn.GroupNorm(1, n),
    "InstanceNorm": nn.InstanceNorm2d,
    "frozen": Frozen,
    "Identity": lambda n: nn.Identity(),
}


@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("norm", NORMS.values(), ids=NORMS)
@pytest.mark.parametrize("make", [NETWORKS["symmetric"], NETWORKS["U-Net"]])
def test_other_norms(make, norm, checkpointed):
    """Against a network whose blocks are called module by module, because of hooks."""
    net = replace_norms(make(), norm)
    hooked = copy.deepcopy(net)
    for module in leaves(hooked).values():
        module.register_forward_hook(lambda *_: None)
    if checkpointed:
        checkpoint_activations(net)
    x = torch.rand(2, 2, 32, 32)
    assert_same(net, hooked, x)
    net.eval()(x)


@pytest.mark.parametrize("kind", [DoubleConv, MirrorDoubleConv])
def test_a_replaced_norm_computes_what_it_says(kind):
    torch.manual_seed(0)
    block = DoubleConv(4, 6) if kind is DoubleConv else MirrorDoubleConv([4], 6, 8)
    block[1], block[4] = nn.Identity(), nn.Identity()
    x = torch.randn(2, 4, 5, 5)
    torch.testing.assert_close(block(x), block[3](block[0](x).relu()).relu())


def test_frozen_batch_norms_in_training_keep_their_statistics():
    net = network(symmetric=True).train()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval().requires_grad_(False)
    before = [b.clone() for b in net.buffers()]
    net(torch.rand(2, 2, 32, 32)).sum().backward()
    for old, new in zip(before, net.buffers(), strict=True):
        assert torch.equal(old, new)


@every_network
def test_convert_sync_batchnorm(make):
    """Outside a process group it computes as a batch norm does, where there is a GPU; here in evaluation."""
    net = make().eval()
    x = torch.rand(2, 2, 32, 32)
    torch.testing.assert_close(nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(net))(x), net(x))


@pytest.mark.filterwarnings("ignore")
@every_network
def test_quantize_dynamic(make):
    net = make().eval()
    x = torch.rand(2, 2, 32, 32)
    quantized = torch.ao.quantization.quantize_dynamic(net, {nn.Linear}, dtype=torch.qint8)
    assert any("quantized" in type(module).__module__ for module in quantized.modules())
    assert (quantized(x) - net(x)).abs().max() < 0.1


@pytest.mark.parametrize("options", [{"symmetric": True}, {}, {"scope": "plane"}, {"attention_levels": ()}])
@pytest.mark.parametrize("training", [False, True])
def test_empty_batches(options, training):
    net = network(**options).train(training)
    if training:
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    y = net(torch.rand(0, 2, 32, 32))
    assert y.shape == (0, 1, 32, 32)
    y.sum().backward()


def test_export_of_any_batch():
    net = network(symmetric=True).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    x = torch.rand(3, 2, 32, 32)
    exported = torch.export.export(net, (x,), dynamic_shapes={"x": {0: batch}}).module()
    for size in (1, 2, 7):
        x = torch.rand(size, 2, 32, 32)
        torch.testing.assert_close(exported(x), net(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_trace():
    net = network(symmetric=True).eval().to(memory_format=torch.channels_last)
    x = torch.rand(2, 2, 32, 32).to(memory_format=torch.channels_last)
    torch.testing.assert_close(torch.jit.trace(net, x)(x), net(x), rtol=1e-4, atol=1e-5)


def test_meta_tensors_under_autocast():
    with torch.device("meta"):
        net, x = network(symmetric=True), torch.empty(2, 2, 32, 32)
    with torch.autocast("cpu", torch.bfloat16):
        assert net(x).shape == (2, 1, 32, 32)


def test_func_grad_in_training_takes_the_buffers_as_arguments():
    """As for PyTorch's batch norms, which a transform does not let change tensors from outside."""
    net = network(symmetric=True).train().to(memory_format=torch.channels_last)
    x = torch.rand(2, 2, 32, 32).to(memory_format=torch.channels_last)
    parameters = {name: p.detach().clone() for name, p in net.named_parameters()}
    buffers = {name: b.clone() for name, b in net.named_buffers()}

    def loss(parameters, buffers):
        return func.functional_call(net, (parameters, buffers), (x,)).square().sum()

    gradients = func.grad(loss)(parameters, buffers)
    net(x).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert_near(gradients[name], parameter.grad)
    for name, buffer in net.named_buffers():
        torch.testing.assert_close(buffers[name], buffer)


def test_gradients_of_each_sample_by_vmap():
    net = network(symmetric=True).eval()
    parameters = {name: p.detach() for name, p in net.named_parameters()}
    x = torch.rand(3, 2, 32, 32)

    def loss(parameters, x):
        return func.functional_call(net, parameters, (x[None],)).square().sum()

    batched = func.vmap(func.grad(loss), in_dims=(None, 0))(parameters, x)
    for index in range(len(x)):
        net.zero_grad()
        net(x[index : index + 1]).square().sum().backward()
        for name, p in net.named_parameters():
            assert_near(batched[name][index], p.grad)


def test_numbers_of_numpy_are_saved(tmp_path):
    options = {"heads": np.int64(2), "max_depth": np.float32(3), "attention_levels": np.array([3, 5])}
    net = BinauralAttentionDepthNet(np.int64(4), **{**options, "lag_bias": np.int64(3)}).eval()
    net.save_pretrained(tmp_path)
    x = torch.rand(1, 2, 32, 32)
    torch.testing.assert_close(BinauralAttentionDepthNet.from_pretrained(tmp_path)(x), net(x))
