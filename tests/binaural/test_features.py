"""Features of two ears: swapped, muted and told apart on the input as on the waveform."""

import pytest
import torch

from binaural.data import FrontEnd
from binaural.features import (
    FEATURES,
    SOUND,
    channel_names,
    check_features,
    ear_channels,
    ears,
    mute,
    swap_ears,
)

SETS = [(name,) for name in SOUND] + [("magnitude", "ipd"), ("gcc_phat", "waveform", "magnitude")]


@pytest.fixture
def waveform():
    """Two recordings [2, 2, T], and more than is read of them."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(2, 2, 1300, generator=generator)


@pytest.mark.parametrize("features", SETS)
def test_swapping_ears_of_the_input_is_swapping_them_in_the_waveform(waveform, features):
    front_end = FrontEnd(features, 1000, 32)
    found = swap_ears(front_end(waveform), features)
    torch.testing.assert_close(found, front_end(waveform.flip(-2)), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(found, front_end(waveform), atol=1e-2)


@pytest.mark.parametrize("features", SETS)
@pytest.mark.parametrize("ear", [0, 1])
def test_muting_an_ear_of_the_input_is_muting_it_in_the_waveform(waveform, features, ear):
    front_end = FrontEnd(features, 1000, 32)
    muted = waveform.clone()
    muted[:, ear] = 0
    found = mute(front_end(waveform), features, ear)
    torch.testing.assert_close(found, front_end(muted), atol=1e-6, rtol=0)


@pytest.mark.parametrize("features", SETS)
def test_each_ear_hears_what_the_other_would_with_the_ears_swapped(waveform, features):
    x = FrontEnd(features, 1000, 32)(waveform)
    left, right = ears(x, features)
    assert left.shape == (2, ear_channels(features), 32, 32)
    swapped_left, swapped_right = ears(swap_ears(x, features), features)
    torch.testing.assert_close(swapped_left, right, rtol=0, atol=0)
    torch.testing.assert_close(swapped_right, left, rtol=0, atol=0)


def test_an_ear_has_its_own_channels_first():
    x = torch.arange(4.0).view(4, 1, 1)
    left, right = ears(x, ("magnitude", "ipd"))
    assert left.flatten().tolist() == [0, 2, 3]
    assert right.flatten().tolist() == [1, -2, 3]


def test_channels_have_names():
    assert channel_names(("magnitude", "gcc_phat")) == ["left ear", "right ear", "cross-correlogram"]
    assert {len(feature.channels) for feature in FEATURES.values()} == {1, 2, 3}


@pytest.mark.parametrize("wrong", [[], ["magnitude", "magnitude"], ["mel"], ["camera", "magnitude"]])
def test_wrong_features_are_named(wrong):
    with pytest.raises(ValueError, match="features must be|only input"):
        check_features(wrong)


def test_ears_do_not_see():
    with pytest.raises(ValueError, match="must be of sound"):
        ear_channels(("camera",))
