"""Whole networks with the backend of their kernels requested by `use_backend`."""

import pytest
import torch

from binaural import BinauralAttentionDepthNet, UNet
from binaural.kernels import use_backend
from binaural.kernels.dispatch.backends import WHY_UNAVAILABLE

NETWORKS = {
    "unet": lambda: UNet(8, view_levels=(3,), skip_levels=(3,)),
    "separate ears": lambda: BinauralAttentionDepthNet(8),
    "symmetric": lambda: BinauralAttentionDepthNet(
        8, (3, 5), symmetric=True, view_levels=(3,), skip_levels=(3,)
    ),
    "cost volume": lambda: BinauralAttentionDepthNet(8, symmetric=True, matching="group_correlation"),
}


@pytest.mark.skipif(
    WHY_UNAVAILABLE["cpp", "batch_norm_relu"] is not None,
    reason=str(WHY_UNAVAILABLE["cpp", "batch_norm_relu"]),
)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_channels_last_network_trains_and_evaluates_on_cpp(name: str) -> None:
    """No call of theirs is one that the C++ kernels do not cover; the results are those of the reference."""
    torch.manual_seed(0)
    network = NETWORKS[name]().to(memory_format=torch.channels_last)
    x = torch.randn(2, 2, 48, 64).to(memory_format=torch.channels_last)
    results = {}
    for backend in ("reference", "cpp"):
        with use_backend(backend):
            results[backend] = network.train()(x)
            results[backend].sum().backward()
            network.eval()(x)
    torch.testing.assert_close(results["cpp"], results["reference"], rtol=1e-4, atol=1e-4)


def test_autocast_networks_run_on_cpp() -> None:
    network = NETWORKS["symmetric"]().to(memory_format=torch.channels_last)
    x = torch.randn(2, 2, 48, 64).to(memory_format=torch.channels_last)
    with use_backend("cpp"), torch.autocast("cpu", torch.bfloat16):
        network(x).sum().backward()
        network.eval()(x)


@pytest.mark.parametrize("backend", ["triton", "cuda"])
def test_layers_run_where_the_backend_has_no_kernels_of_them(backend: str) -> None:
    """The U-Net has neither attention nor a fused loss."""
    network, x = NETWORKS["unet"](), torch.randn(1, 2, 32, 32)
    with use_backend(backend):
        depth = network(x)
    assert depth.isfinite().all()


def test_a_network_in_another_memory_format_names_the_layer() -> None:
    network, x = NETWORKS["unet"](), torch.randn(1, 2, 32, 32)
    with (
        use_backend("cpp"),
        pytest.raises(ValueError, match="cannot run batch_norm_relu here: .*last"),
    ):
        network(x)
