from PIL import Image

from binaural.pictures.curves import draw_curves


def test_curves_are_drawn(tmp_path):
    log = [
        {"kind": "train", "step": s, "loss": 1 / s, "recon": 1, "edge": 1, "learning_rate": 1} for s in (1, 2)
    ] + [{"kind": "validation", "step": 2, "rmse": 1.0, "mae": 0.5}]
    draw_curves(tmp_path / "curves.png", log, ("recon", "edge"))
    picture = Image.open(tmp_path / "curves.png").convert("L")
    assert picture.size[0] == 1200
    assert picture.getextrema()[0] < 50 < 200 < picture.getextrema()[1]
    assert len(list(tmp_path.iterdir())) == 1
