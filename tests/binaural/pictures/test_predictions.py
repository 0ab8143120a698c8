import pytest
import torch
from PIL import Image

from binaural import UNet
from binaural.features import channel_names
from binaural.pictures.predictions import draw_predictions


class Samples(list):
    """Pairs of inputs and depth; the last one without a single measurement."""

    def __init__(self, features):
        channels = len(channel_names(features))
        super().__init__((torch.rand(channels, 32, 32), torch.rand(1, 32, 32) * (i < 2)) for i in range(3))
        self.features = features


@pytest.mark.parametrize("features", [("magnitude",), ("magnitude", "ipd"), ("gcc_phat",), ("camera",)])
def test_predictions_are_drawn(tmp_path, features):
    network = UNet(4, features=features).eval()
    draw_predictions(tmp_path / "predictions.png", network, Samples(features), torch.device("cpu"))
    picture = Image.open(tmp_path / "predictions.png").convert("L")
    assert picture.size[0] == 1200
    assert picture.getextrema()[0] < 50 < 200 < picture.getextrema()[1]
    assert len(list(tmp_path.iterdir())) == 1
