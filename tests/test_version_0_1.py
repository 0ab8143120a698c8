"""A network and a run folder that version 0.1 wrote, before files and modules were renamed, still load.

tests/data/version-0.1 is a run of `train.py --base_channels 2 --view_levels --image_size 16` for one epoch on
four rooms; its config.json has all options.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch

import train
from binaural import BinauralAttentionDepthNet, load_network
from binaural.simulate import simulate_dataset

RUN = Path(__file__).resolve().parent / "data/version-0.1"


def test_the_network_predicts_as_then() -> None:
    network = load_network(RUN / "best")
    assert isinstance(network, BinauralAttentionDepthNet)
    torch.manual_seed(0)
    # In training mode: after two steps the running statistics of batch norm still make all depths alike.
    depth = network.train()(torch.randn(2, 2, 16, 16)).detach()
    expected = torch.tensor([2.1268, 2.3337, 1.9969, 1.9969, 2.8956, 2.5536, 3.2449, 1.9969])
    torch.testing.assert_close(depth.flatten()[::64], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_run_is_resumed(tmp_path: Path) -> None:
    rooms = tmp_path / "rooms"
    simulate_dataset(rooms, rooms_train=4, rooms_val=2, rooms_test=2, workers=1, progress=False)
    shutil.copytree(RUN, tmp_path / "runs/version-0.1")
    config = json.loads((RUN / "config.json").read_text())
    options = ["--dataset", "batvisionv2", "--base_channels", "2", "--image_size", "16", "--max_depth", "10"]
    options += ["--batch_size", "2", "--precision", "fp32", "--view_levels", "--no-cache"]
    folders = ["--dataset_dir", str(rooms), "--runs_dir", str(tmp_path / "runs")]
    train.main([*options, *folders, "--experiment_name", "version-0.1", "--nb_epochs", "2", "--resume"])
    log = (tmp_path / "runs/version-0.1/log.jsonl").read_text().splitlines()
    epochs = [record["epoch"] for record in map(json.loads, log) if record["kind"] == "validation"]
    assert config["nb_epochs"] == 1
    assert epochs == [1, 2]
