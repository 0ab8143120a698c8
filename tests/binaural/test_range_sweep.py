import pytest
import torch
from torch import nn

from binaural import BinauralAttentionDepthNet, UNet, load_network
from binaural.mirror import MirrorRangeSweep
from binaural.range_sweep import DIRECTIONS, RangeSweep, RangeSweeps, band_channels


def make_sweep(level=3, out_channels=5):
    torch.manual_seed(0)
    return RangeSweep(level, nn.Identity(), out_channels)


def make_bands(level=3, batch=2):
    steps = 64 >> (level - 1)
    return torch.randn(batch, band_channels(level), steps, steps)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_sizes_of_all_levels(level):
    sweep, bands = make_sweep(level), make_bands(level)
    steps = bands.shape[-1]
    assert sweep.pictures(bands).shape == (2, steps, DIRECTIONS, DIRECTIONS)
    assert sweep(bands).shape == (2, 5, DIRECTIONS, DIRECTIONS)
    assert sweep.look.weight.shape == (DIRECTIONS**2, 512)


def test_a_picture_is_the_same_linear_map_of_all_bands_at_every_range():
    sweep, bands = make_sweep(), make_bands()
    weight = sweep.look.weight.unflatten(0, (DIRECTIONS, DIRECTIONS)).unflatten(-1, (16, band_channels(3)))
    torch.testing.assert_close(sweep.pictures(bands), torch.einsum("eafc,bcft->btea", weight, bands))


def test_a_later_echo_is_further_away_and_changes_nothing_else():
    sweep, bands = make_sweep(), make_bands()
    later = sweep.pictures(bands.roll(3, dims=-1))
    torch.testing.assert_close(later, sweep.pictures(bands).roll(3, dims=1))


def test_other_sizes_are_averaged():
    sweep, bands = make_sweep(), make_bands()
    larger = bands.repeat_interleave(2, dim=2).repeat_interleave(3, dim=3)
    torch.testing.assert_close(sweep(larger), sweep(bands))
    smaller = bands[:, :, ::2, ::4]
    torch.testing.assert_close(
        sweep(smaller), sweep(smaller.repeat_interleave(2, dim=2).repeat_interleave(4, dim=3))
    )


def test_sweeps_add_up_over_the_map_of_level_3():
    sweeps = RangeSweeps({3: make_sweep(3), 1: make_sweep(1)})
    bands = {1: make_bands(1), 3: make_bands(3)}
    features = [torch.zeros(2, 5, 64 >> i, 64 >> i) for i in range(5)]
    sweeps.add_to(features, [(bands[1],), (), (bands[3],)])
    expected = sweeps["1"](bands[1]) + sweeps["3"](bands[3])
    torch.testing.assert_close(features[2], expected)
    assert not any(features[i].any() for i in (0, 1, 3, 4))
    # of another size than 16 x 16
    features[2] = torch.zeros(2, 5, 32, 48)
    sweeps.add_to(features, [(bands[1],), (), (bands[3],)])
    torch.testing.assert_close(
        features[2], nn.functional.interpolate(expected, (32, 48), mode="bilinear", align_corners=False)
    )


def test_swapped_ears_mirror_the_pictures():
    torch.manual_seed(0)
    sweep = MirrorRangeSweep(3, 6, 8)
    left, right = torch.randn(2, 2, 6, 16, 16)
    seen, swapped = sweep(left, right), sweep(right, left)
    assert (seen - seen.flip(-1)).std() > 0.01
    torch.testing.assert_close(swapped, seen.flip(-1))
    torch.testing.assert_close(seen[:, :4], seen[:, 4:])


@pytest.mark.parametrize("options", [{}, {"symmetric": True}])
def test_the_rest_of_the_network_begins_as_without(options):
    def make(levels):
        torch.manual_seed(0)
        return BinauralAttentionDepthNet(8, sweep_levels=levels, **options)

    without, swept = make(()).state_dict(), make((3, 4)).state_dict()
    added = swept.keys() - without.keys()
    assert added
    assert all(name.startswith(("sweeps.3.", "sweeps.4.")) for name in added)
    for name, value in without.items():
        assert torch.equal(swept[name], value), name


@pytest.mark.parametrize("kind", [BinauralAttentionDepthNet, UNet])
def test_saved_with_its_levels_and_refused_beyond_them(kind, tmp_path):
    network = kind(8, sweep_levels=(4, 3)).eval()
    network.save_pretrained(tmp_path)
    x = torch.randn(1, 2, 64, 64)
    loaded = load_network(tmp_path)
    assert loaded.arguments["sweep_levels"] == (4, 3)
    torch.testing.assert_close(loaded(x), network(x))
    for wrong in ((6,), (0, 1), (3, 3)):
        with pytest.raises(ValueError, match="sweep_levels must be different levels from 1 to 5"):
            kind(8, sweep_levels=wrong)
