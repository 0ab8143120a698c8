import torch
from PIL import Image

from binaural import UNet
from binaural.pictures.predictions import draw_predictions


class Samples(list):
    """Pairs of spectrograms and depth; the last one without a single measurement."""


def test_predictions_are_drawn(tmp_path):
    samples = Samples((torch.rand(2, 32, 32), torch.rand(1, 32, 32) * (i < 2)) for i in range(3))
    draw_predictions(tmp_path / "predictions.png", UNet(4).eval(), samples, torch.device("cpu"))
    picture = Image.open(tmp_path / "predictions.png").convert("L")
    assert picture.size[0] == 1200
    assert picture.getextrema()[0] < 50 < 200 < picture.getextrema()[1]
    assert len(list(tmp_path.iterdir())) == 1
