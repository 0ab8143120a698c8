import torch
from PIL import Image

from binaural import UNet
from binaural.training.pictures import draw_curves, draw_predictions


class Samples(list):
    """Pairs of spectrograms and depth; the last one without a single measurement."""


def test_pictures_are_drawn(tmp_path):
    samples = Samples((torch.rand(2, 32, 32), torch.rand(1, 32, 32) * (i < 2)) for i in range(3))
    draw_predictions(tmp_path / "predictions.png", UNet(4).eval(), samples, torch.device("cpu"))
    log = [
        {"kind": "train", "step": s, "loss": 1 / s, "recon": 1, "edge": 1, "smooth": 1, "learning_rate": 1}
        for s in (1, 2)
    ] + [{"kind": "validation", "step": 2, "rmse": 1.0, "mae": 0.5}]
    draw_curves(tmp_path / "curves.png", log)
    for name in ("predictions.png", "curves.png"):
        picture = Image.open(tmp_path / name).convert("L")
        assert picture.size[0] == 1200
        assert picture.getextrema()[0] < 50 < 200 < picture.getextrema()[1]
    assert len(list(tmp_path.iterdir())) == 2
