"""A network's input from whole recordings: the data set's own, and those of another."""

import pytest
import torch

from binaural.data import BatVisionV1, BatVisionV2, NetworkInput


@pytest.mark.parametrize("preprocessing", ["default", "official"])
def test_equals_the_items_of_its_own_data_set(v1_root, v2_root, preprocessing):
    for name, kind, root, max_depth in (
        ("batvisionv2", BatVisionV2, v2_root, 11.0),
        ("batvisionv1", BatVisionV1, v1_root, 12.0),
    ):
        data = kind(root, "train", max_depth=max_depth, image_size=48, preprocessing=preprocessing)
        network_input = NetworkInput(name, 48, max_depth, preprocessing)
        for index in range(len(data)):
            found = network_input(data.read_recording(index))
            torch.testing.assert_close(found, data[index][0], rtol=0, atol=0)


@pytest.mark.parametrize("trained_on", ["batvisionv1", "batvisionv2"])
def test_the_chirp_of_another_data_set_arrives_when_it_did_in_training(trained_on):
    network_input = NetworkInput(trained_on, 32, 10.0, "default")
    heard = []
    for lead_in in (BatVisionV1.LEAD_IN, BatVisionV2.LEAD_IN, 5):
        recording = torch.zeros(2, 6000)
        recording[:, lead_in] = 1.0
        heard.append(network_input.cut(recording, lead_in))
        assert heard[-1].shape == (2, network_input.length)
    assert heard[0].sum() == 2
    assert torch.equal(heard[0], heard[1])
    assert torch.equal(heard[0], heard[2])


def test_what_is_not_there_is_silence():
    network_input = NetworkInput("batvisionv2", 32, 10.0, "default")
    cut = network_input.cut(torch.ones(2, 300), BatVisionV2.LEAD_IN - 100)
    assert torch.equal(cut[0].nonzero().flatten(), torch.arange(100, 400))


def test_a_recording_that_ends_early_is_named():
    network_input = NetworkInput("batvisionv2", 32, 10.0, "default")
    network_input.check_length(torch.zeros(2, 2841), "fine.wav")
    with pytest.raises(ValueError, match="short.wav: 2840 samples .* at least 2841.* 10 m"):
        network_input.check_length(torch.zeros(2, 2840), "short.wav")


def test_time_of_a_column():
    # 2,841 samples over 64 columns: 45 each, in 3 windows of hop 15.
    network_input = NetworkInput("batvisionv2", 64, 10.0, "default")
    assert network_input.column_seconds() == pytest.approx(3 * 15 / 44100)
    official = NetworkInput("batvisionv2", 64, 10.0, "official")
    assert official.column_seconds() == pytest.approx(int(20 / 340 * 44100) / 64 / 44100)
    whole = NetworkInput("batvisionv1", 64, 12.0, "official")
    assert whole.column_seconds(torch.zeros(2, 6400)) == pytest.approx(100 / 44100)
    with pytest.raises(ValueError, match="whole"):
        whole.column_seconds()


@pytest.mark.parametrize("preprocessing", ["default", "official"])
def test_decibels_of_a_sinusoid(preprocessing):
    """An amplitude of a tenth stands 20 dB below one of 1."""
    network_input = NetworkInput("batvisionv2", 32, 10.0, preprocessing)
    tone = torch.sin(2 * torch.pi * 5000 / 44100 * torch.arange(20000))
    levels = network_input.decibels(torch.stack((tone, 0.1 * tone))).amax((-2, -1))
    assert float(levels[0] - levels[1]) == pytest.approx(20.0, abs=0.1)


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="dataset must be one of .* got 'kitti'"):
        NetworkInput("kitti", 32, 10.0, "default")
    with pytest.raises(ValueError, match="preprocessing"):
        NetworkInput("batvisionv2", 32, 10.0, "mel")
