import shutil

import numpy as np
import pytest
import torch

from binaural.data import BatVisionV2, open_split
from binaural.training.build import make_network
from binaural.training.checks import check_backend, check_data
from binaural.training.options import parse_options

CPU = torch.device("cpu")


def test_a_backend_that_cannot_run_here():
    small = ["--image_size", "32", "--base_channels", "4", "--kernel_backend"]
    options = parse_options([*small, "reference"])
    check_backend(make_network(options), options, CPU, torch.float32)
    options = parse_options([*small, "cuda"])
    with pytest.raises(ValueError, match="backend 'cuda' cannot run cross_attention here"):
        check_backend(make_network(options), options, CPU, torch.float32)


def test_a_split_without_depth(rooms, tmp_path):
    root = shutil.copytree(rooms, tmp_path / "rooms")
    options = parse_options(["--dataset_dir", str(root), "--metric_threshold", "0.5", "--batch_size", "2"])

    def check():
        splits = {split: open_split("simulated", root, split, image_size=32) for split in ("train", "val")}
        check_data(options, **splits)

    check()
    for recording in BatVisionV2(root, "val").recordings:
        np.save(recording.depth, np.minimum(np.load(recording.depth), 500))
    with pytest.raises(ValueError, match=r"no depth map of the val split has a pixel deeper than 0\.5"):
        check()
    for recording in BatVisionV2(root, "train").recordings:
        np.save(recording.depth, np.minimum(np.load(recording.depth), 500))
    options.metric_threshold = 0.0
    check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size", "3"], "--batch_size must be at most 2, the number of training samples, got 3"),
        (
            ["--batch_size", "1", "--accumulate", "3"],
            "--accumulate must be at most 2, the batches of an epoch",
        ),
    ],
)
def test_an_epoch_without_a_step(rooms, arguments, message):
    options = parse_options(["--dataset", "batvisionv2", "--dataset_dir", str(rooms), *arguments])
    with pytest.raises(ValueError, match=message):
        check_data(options, train=open_split("batvisionv2", rooms, "train", image_size=32))
