import pytest
import torch
from torch import nn

from binaural import BinauralAttentionDepthNet, UNet, load_network
from binaural.models.mirror import MirrorViewTransform
from binaural.models.view_transform import DIRECTIONS, Reduction, ViewTransform, ViewTransforms, row_channels


def make_transform(level=3, out_channels=5):
    torch.manual_seed(0)
    return ViewTransform(level, nn.Identity(), out_channels)


def make_reduced(level=3, batch=2):
    ranges = 64 >> (level - 1)
    return torch.randn(batch, row_channels(level), ranges, ranges)


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_sizes_of_all_levels(level):
    transform, reduced = make_transform(level), make_reduced(level)
    ranges = reduced.shape[-1]
    assert transform.volume(reduced).shape == (2, ranges, DIRECTIONS, DIRECTIONS)
    assert transform(reduced).shape == (2, 5, DIRECTIONS, DIRECTIONS)
    assert transform.dense.weight.shape == (DIRECTIONS**2, 512)


def test_directions_are_the_same_linear_map_of_all_rows_at_every_range():
    transform, reduced = make_transform(), make_reduced()
    weight = transform.dense.weight.unflatten(0, (DIRECTIONS, DIRECTIONS)).unflatten(-1, (16, -1))
    torch.testing.assert_close(transform.volume(reduced), torch.einsum("eafc,bcft->btea", weight, reduced))


def test_a_later_echo_is_further_away_and_nothing_else_changes():
    transform, reduced = make_transform(), make_reduced()
    later = transform.volume(reduced.roll(3, dims=-1))
    torch.testing.assert_close(later, transform.volume(reduced).roll(3, dims=1))


def test_larger_maps_are_averaged_and_smaller_ones_repeated():
    transform, reduced = make_transform(), make_reduced()
    noise = torch.randn(2, row_channels(3), 16, 2, 16, 3)
    larger = reduced[:, :, :, None, :, None] + noise - noise.mean((3, 5), keepdim=True)
    torch.testing.assert_close(transform(larger.flatten(4, 5).flatten(2, 3)), transform(reduced))
    smaller = reduced[:, :, ::2, ::4]
    repeated = smaller.repeat_interleave(2, dim=2).repeat_interleave(4, dim=3)
    torch.testing.assert_close(transform(smaller), transform(repeated))


def test_levels_add_up_over_the_map_of_level_3():
    transforms = ViewTransforms({3: make_transform(3), 1: make_transform(1)})
    maps = [(make_reduced(1),), (), (make_reduced(3),), (), ()]
    seen = transforms["1"](*maps[0]) + transforms["3"](*maps[2])
    target = torch.randn(2, 5, DIRECTIONS, DIRECTIONS)
    torch.testing.assert_close(transforms(target, maps), target + seen)
    target = torch.randn(2, 5, 32, 48)
    resized = nn.functional.interpolate(seen, (32, 48), mode="bilinear", align_corners=False)
    torch.testing.assert_close(transforms(target, maps), target + resized)
    assert ViewTransforms({})(target, maps) is target


def test_reduction():
    torch.manual_seed(0)
    reduction = Reduction(6, 4)
    x = torch.randn(2, 6, 5, 7)
    expected = nn.functional.relu(nn.functional.batch_norm(reduction.conv(x), None, None, training=True))
    torch.testing.assert_close(reduction(x), expected)


def test_swapped_ears_mirror_what_is_seen():
    torch.manual_seed(0)
    transform = MirrorViewTransform(3, 6, 8)
    left, right = torch.randn(2, 2, 6, 16, 16)
    seen, swapped = transform(left, right), transform(right, left)
    assert (seen - seen.flip(-1)).std() > 0.01
    torch.testing.assert_close(swapped, seen.flip(-1))
    torch.testing.assert_close(seen[:, :4], seen[:, 4:])


@pytest.mark.parametrize("options", [{}, {"symmetric": True}])
def test_the_rest_of_the_network_begins_as_without(options):
    def make(levels):
        torch.manual_seed(0)
        return BinauralAttentionDepthNet(8, view_levels=levels, **options)

    without, within = make(()).state_dict(), make((3, 4)).state_dict()
    added = within.keys() - without.keys()
    assert added
    assert all(name.startswith(("view_transforms.3.", "view_transforms.4.")) for name in added)
    for name, value in without.items():
        assert torch.equal(within[name], value), name


@pytest.mark.parametrize("kind", [BinauralAttentionDepthNet, UNet])
def test_saved_with_its_levels(kind, tmp_path):
    network = kind(8, view_levels=(4, 3)).eval()
    network.save_pretrained(tmp_path)
    x = torch.randn(1, 2, 64, 64)
    loaded = load_network(tmp_path)
    assert loaded.arguments["view_levels"] == (4, 3)
    torch.testing.assert_close(loaded(x), network(x))
    for parameter in network.view_transforms.parameters():
        nn.init.zeros_(parameter)
    assert not torch.equal(loaded(x), network(x))


@pytest.mark.parametrize("kind", [BinauralAttentionDepthNet, UNet])
@pytest.mark.parametrize("levels", [(6,), (0, 1), (3, 3)])
def test_other_levels_are_refused(kind, levels):
    with pytest.raises(ValueError, match="view_levels must be different levels from 1 to 5"):
        kind(8, view_levels=levels)
