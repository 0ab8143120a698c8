import pytest
import torch

from binaural import UNet
from binaural.features import channel_names
from binaural.models.adaptive_bins import AdaptiveBinsNet, DistillationLoss
from binaural.training.build import MODELS, make_loss, make_network
from binaural.training.options import parse_options

SMALL = ["--base_channels", "4", "--image_size", "32", "--max_depth", "10"]


@pytest.fixture
def teacher(save_network):
    return save_network("teacher", AdaptiveBinsNet(4, 10.0, features=["camera"]), features=["camera"])


@pytest.mark.parametrize("model", MODELS)
def test_every_system_learns_from_a_batch(model, teacher):
    taught = ["--teacher", str(teacher)] if model == "adabins_distill" else []
    options = parse_options([*SMALL, "--model", model, *taught])
    network = make_network(options)
    loss = make_loss(options, network)
    output = network.train()(torch.rand(2, len(channel_names(network.features)), 32, 32))
    seen = [10 * torch.rand(2, 1, 32, 32)] + ([torch.rand(2, 3, 32, 32)] if taught else [])
    total, terms = loss(output, *seen)
    assert terms.shape == (len(loss.terms),)
    assert not terms.requires_grad
    torch.testing.assert_close(total, sum(w * t for w, t in zip(loss.weights, terms, strict=True)))
    total.backward()
    assert all(p.grad is not None for p in network.parameters())


def test_matching_and_features_reach_the_network():
    options = parse_options([*SMALL, "--matching", "group_correlation", "--features", "magnitude", "ipd"])
    arguments = make_network(options).arguments
    assert arguments["matching"] == "group_correlation"
    assert arguments["features"] == ("magnitude", "ipd")


def test_a_picture_of_64_is_halved_six_times():
    options = parse_options(["--model", "unet_pix2pix"])
    assert make_network(options).arguments["downsamplings"] == 6


@pytest.mark.parametrize(
    ("network", "other", "message"),
    [
        (UNet(4, 10.0), {}, "must be an adabins_teacher"),
        (AdaptiveBinsNet(4, 10.0), {}, "must be an adabins_teacher"),
        (
            AdaptiveBinsNet(8, 10.0, features=["camera"]),
            {"features": ["camera"]},
            "base_channels must be that of the student, 4, got 8",
        ),
        (
            AdaptiveBinsNet(4, 10.0, features=["camera"]),
            {"features": ["camera"], "image_size": 64},
            "image_size must be that of the student, 32, got 64",
        ),
    ],
)
def test_what_cannot_teach_is_named(save_network, network, other, message):
    folder = save_network("teacher", network, **other)
    options = parse_options([*SMALL, "--model", "adabins_distill", "--teacher", str(folder)])
    with pytest.raises(ValueError, match=message):
        make_loss(options, make_network(options))


def test_the_teacher_is_used_as_saved(teacher):
    options = parse_options([*SMALL, "--model", "adabins_distill", "--teacher", str(teacher)])
    loss = make_loss(options, make_network(options))
    assert isinstance(loss, DistillationLoss)
    saved = AdaptiveBinsNet.from_pretrained(teacher)
    assert all(torch.equal(a, b) for a, b in zip(saved.parameters(), loss.teacher.parameters(), strict=True))


@pytest.mark.parametrize("model", ["binaural", "unet"])
def test_levels_reach_the_network(model):
    arguments = make_network(
        parse_options([*SMALL, "--model", model, "--skip_levels", "2", "3", "--view_levels", "3"])
    ).arguments
    assert (arguments["skip_levels"], arguments["view_levels"]) == ((2, 3), (3,))
