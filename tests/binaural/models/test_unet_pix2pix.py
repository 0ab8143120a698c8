import pytest
import torch

from binaural.models.unet_pix2pix import UNetPix2Pix, halvings


def test_it_is_as_large_as_batvisions_baseline():
    """54.4 million parameters: unet_256 of pix2pix at 64 channels, two channels in, one out."""
    parameters = sum(p.numel() for p in UNetPix2Pix(64).parameters())
    assert round(parameters / 1e6, 1) == 54.4


@pytest.mark.parametrize(("size", "expected"), [(256, 8), (128, 7), (64, 6), (512, 8), (48, 4), (80, 4)])
def test_a_picture_is_halved_as_often_as_it_can_be(size, expected):
    assert halvings(size) == expected


@pytest.mark.parametrize("size", [48, 64])
def test_it_goes_down_to_the_smallest_map_and_back(size):
    network = UNetPix2Pix(4, 9.0, halvings(size))
    depth = network(100 * torch.randn(2, 2, size, size))
    assert depth.shape == (2, 1, size, size)
    assert depth.min() >= 0
    assert depth.max() <= 9.0
    depth.mean().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name


def test_one_recording_at_a_time_can_be_trained_on():
    assert torch.isfinite(UNetPix2Pix(4, 9.0, 6)(torch.randn(1, 2, 64, 64))).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [((1, 2, 64, 96), "multiples of 64 for 6 downsamplings"), ((1, 2, 32, 32), "at least 64")],
)
def test_sizes_that_cannot_be_halved_are_named(shape, message):
    with pytest.raises(ValueError, match=message):
        UNetPix2Pix(4, 9.0, 6)(torch.randn(shape))


def test_refusals():
    with pytest.raises(ValueError, match="downsamplings must be from 2 to 8, got 9"):
        UNetPix2Pix(4, 9.0, 9)


def test_initial_weights_are_those_of_pix2pix():
    """Normal around 0, scales of norms around 1, and biases 0, the last one too."""
    torch.manual_seed(0)
    network = UNetPix2Pix(8, downsamplings=3)
    assert network.ups[0][0].bias.abs().max() == 0
    assert 0.01 < network.ups[0][0].weight.std() < 0.03
    assert all(not p.any() for name, p in network.named_parameters() if name.endswith("bias"))
