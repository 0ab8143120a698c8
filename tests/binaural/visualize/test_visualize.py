"""`python -m binaural.visualize` on a handful of rooms."""

import numpy as np
import pytest
import torch
from PIL import Image

from binaural import BinauralAttentionDepthNet
from binaural.visualize import attention_picture as attention_pictures
from binaural.visualize.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def output(tmp_path):
    return tmp_path / "pictures"


def visualize(folder, rooms, output, *more):
    main([str(folder), "--dataset_dir", str(rooms), "--output", str(output), "--device", "cpu", *more])


def binaural(**options):
    torch.manual_seed(0)
    return BinauralAttentionDepthNet(4, max_depth=10.0, **options)


def test_pictures_of_the_chosen_recordings_and_level(rooms, save_network, output, monkeypatch):
    drawn = []

    def note(path, title, recording, lag_bias):
        drawn.append((path.name, recording, lag_bias))

    monkeypatch.setattr("binaural.visualize.__main__.draw_attention", note)
    visualize(save_network("b", binaural()), rooms, output, "--index", "1", "4", "--level", "3")
    assert [name for name, *_ in drawn] == ["attention-1-level-3.png", "attention-4-level-3.png"]
    _, recording, lag_bias = drawn[0]
    # 10 m: 2,841 samples over 32 columns, 89 each, in 6 windows of hop 15; four columns at level 3
    assert recording.step_ms == pytest.approx(1000 * 4 * 6 * 15 / 44100)
    assert recording.decibels.shape == (2, 8, 8)
    assert lag_bias.shape == (4, 17)
    assert not torch.equal(recording.weights.left_attends, drawn[1][1].weights.left_attends)


@pytest.mark.parametrize("options", [{}, {"lag_bias": None, "max_lag": 3}, {"symmetric": True}])
def test_the_attention_is_drawn(rooms, save_network, output, options, capsys):
    visualize(save_network("b", binaural(**options)), rooms, output)
    assert sorted(path.name for path in output.iterdir()) == ["attention-0-level-2.png", "predictions.png"]
    picture = np.array(Image.open(output / "attention-0-level-2.png").convert("L"))
    assert picture.shape == (1450, 1500)
    # Every panel has something in it.
    for row in np.array_split(picture, 4):
        for panel in np.array_split(row, 3, axis=1):
            assert panel.std() > 10
    assert str(output / "attention-0-level-2.png") in capsys.readouterr().out


def test_swapped_ears_are_the_attention_of_the_swapped_recording(rooms, save_network, output, monkeypatch):
    """With both ears' weights alike, swapping the ears swaps the readers."""
    network = binaural()
    network.encoder_right.load_state_dict(network.encoder_left.state_dict())
    for attention in network.attention.values():
        attention.norm_right.load_state_dict(attention.norm_left.state_dict())
        attention.project_right.load_state_dict(attention.project_left.state_dict())
    titles = []
    draw_map = attention_pictures._draw_map

    def note(figure, axis, recording, values, title, *rest):
        titles.append(title)
        draw_map(figure, axis, recording, values, title, *rest)

    monkeypatch.setattr(attention_pictures, "_draw_map", note)
    visualize(save_network("alike", network), rooms, output)
    swapped = [title for title in titles if "swapped" in title]
    assert len(swapped) == 2
    assert all("r = 1.00" in title for title in swapped)


def test_a_network_without_attention_has_predictions_only(rooms, save_network, output, capsys):
    visualize(save_network("u"), rooms, output)
    assert [path.name for path in output.iterdir()] == ["predictions.png"]
    assert "no attention to draw" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "more", "message"),
    [
        ({}, ["--level", "1"], "at level 1; levels with attention: 2, 3, 4, 5"),
        ({}, ["--index", "5"], "there are 5 recordings"),
        ({"scope": "plane"}, [], "attention over the plane"),
        (None, ["--level", "2"], "levels with attention: none"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_written(
    rooms, save_network, output, options, more, message
):
    folder = save_network("x", None if options is None else binaural(**options))
    with pytest.raises(SystemExit) as error:
        visualize(folder, rooms, output, *more)
    assert message in str(error.value.code)
    assert not output.exists()


@pytest.mark.parametrize(
    "options",
    [{"matching": "group_correlation"}, {"features": ["gcc_phat"], "attention_levels": [5]}],
)
def test_other_matching_and_features(rooms, save_network, output, options, capsys):
    """A cost volume has no attention to draw; levels are drawn whatever the network hears."""
    network = binaural(**options)
    visualize(save_network("b", network, features=network.features), rooms, output)
    drawn = {path.name for path in output.iterdir()}
    if "matching" in options:
        assert drawn == {"predictions.png"}
        assert "has no attention to draw" in capsys.readouterr().out
    else:
        assert drawn == {"predictions.png", "attention-0-level-5.png"}
