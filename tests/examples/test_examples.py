"""The scripts in examples/ run as their docstrings say."""

import os
import subprocess
import sys
from pathlib import Path

from binaural import UNet, load_network
from binaural.simulate import simulate_dataset

ROOT = Path(__file__).resolve().parents[2]


def run(name: str, *arguments: str | Path, cwd: Path) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(ROOT / "examples" / name), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_training_on_tensors(tmp_path: Path) -> None:
    printed = run("train_on_tensors.py", cwd=tmp_path)
    assert "epoch 2: loss " in printed
    assert load_network(tmp_path / "runs/example").arguments["base_channels"] == 8


def test_attention_in_another_model(tmp_path: Path) -> None:
    assert "outputs [8, 100, 64] and [8, 120, 64]" in run("attention_in_your_model.py", cwd=tmp_path)


def test_prediction(tmp_path: Path) -> None:
    rooms = simulate_dataset(
        tmp_path / "rooms", rooms_train=1, rooms_val=1, rooms_test=1, workers=1, progress=False
    )
    recording = next(rooms.rglob("*.wav"))
    described = {"dataset": "simulated", "image_size": 32, "max_depth": 10.0, "preprocessing": "default"}
    UNet(4, 10.0).save_pretrained(tmp_path / "network", {"input": described})
    printed = run(
        "predict_and_plot.py", tmp_path / "network", recording, tmp_path / "depth.png", cwd=tmp_path
    )
    assert "median" in printed
    assert (tmp_path / "depth.png").stat().st_size > 1000


def test_every_example_is_tested() -> None:
    tested = Path(__file__).read_text()
    assert all(f'"{path.name}"' in tested for path in (ROOT / "examples").glob("*.py"))
