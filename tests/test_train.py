"""`train.py` from end to end, on a handful of simulated rooms."""

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import train
from binaural import load_network
from binaural.data import BatVisionV2
from binaural.evaluate import __main__ as evaluate
from binaural.kernels.dispatch.backends import requested_backend
from binaural.metrics import METRICS
from binaural.predict import __main__ as predict
from binaural.simulate import simulate_dataset
from binaural.training.trainer import Trainer

ROOT = Path(__file__).resolve().parents[1]
SMALL = [
    "--dataset", "batvisionv2", "--image_size", "32", "--max_depth", "10", "--base_channels", "4",
    "--batch_size", "4", "--nb_epochs", "3", "--num_workers", "0", "--log_interval", "1",
    "--precision", "fp32",  # runs are compared that differ in rounding, on CPUs with and without bfloat16
]  # fmt: skip


@pytest.fixture(autouse=True)
def one_thread():
    """At this size threads cost more than they bring."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    root = tmp_path_factory.mktemp("rooms") / "simulated"
    simulate_dataset(root, rooms_train=18, rooms_val=3, rooms_test=3, workers=1, progress=False)
    return root


def arguments(rooms, runs, name, *more):
    return [*SMALL, "--dataset_dir", str(rooms), "--runs_dir", str(runs), "--experiment_name", name, *more]


def start(*args):
    """Python in a process of its own."""
    return subprocess.Popen(
        [sys.executable, *args],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_to_end(*args):
    process = start("train.py", *args)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    return out


def wait_for(condition, process):
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)


def log_of(run):
    path = run / "log.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def whole_run(rooms, tmp_path_factory):
    """A run that nothing disturbed."""
    runs = tmp_path_factory.mktemp("runs")
    out = run_to_end(*arguments(rooms, runs, "whole", "--use_adaptive_loss"))
    return runs / "whole", out


def test_a_run_leaves_what_it_promises(whole_run):
    run, out = whole_run
    metrics = json.loads((run / "metrics.json").read_text())
    for name in METRICS:
        assert 0 <= metrics[name] < 100
        assert 0 <= metrics["constant"][name] < 100
    assert metrics["threshold"] == 0
    log = log_of(run)
    steps = [record for record in log if record["kind"] == "train"]
    assert [record["step"] for record in steps] == list(range(1, 13))  # 18 // 4 = 4 steps in each of 3 epochs
    assert {"loss", "recon", "edge", "smooth", "learning_rate", "samples_per_second"} <= steps[0].keys()
    validations = [record for record in log if record["kind"] == "validation"]
    assert [record["step"] for record in validations] == [4, 8, 12]
    assert json.loads((run / "config.json").read_text())["base_channels"] == 4
    assert {"predictions.png", "curves.png"} <= {path.name for path in run.iterdir()}
    for folder in ("best", "last"):
        config = json.loads((run / folder / "config.json").read_text())
        assert config["input"]["image_size"] == 32
        assert load_network(run / folder)(torch.zeros(1, 2, 32, 32)).shape == (1, 1, 32, 32)
    assert "pixels deeper than 0 m" in out
    assert "constant" in out
    assert not list(run.rglob("*.tmp*"))


# Kills itself the nth time that it is about to put a file in place, having written half of it.
KILL = """
import os, signal, sys
import train
name, times = sys.argv[1], int(sys.argv[2])
put_in_place = os.replace
def replace(source, target):
    global times
    times -= str(target).endswith(name)
    if times == 0:
        os.truncate(source, os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    put_in_place(source, target)
os.replace = replace
train.main(sys.argv[3:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "times"),
    [
        ("best/config.json", 1),  # an epoch is logged, of best/ half is there, of last/ nothing
        ("last/training_state.pt", 2),  # best/ and the weights beside the state are newer than it
    ],
)
def test_killed_while_saving_and_resumed_ends_with_the_same_bits(rooms, whole_run, tmp_path, name, times):
    args = arguments(rooms, tmp_path, "killed", "--use_adaptive_loss")
    process = start("-c", KILL, name, str(times), *args)
    assert process.communicate(timeout=240) is not None
    assert process.returncode == -signal.SIGKILL
    train.main([*args, "--resume"])
    assert_same_run(tmp_path / "killed", whole_run[0])


@pytest.mark.slow
def test_killed_while_training_and_resumed_ends_with_the_same_bits(rooms, whole_run, tmp_path):
    args = arguments(rooms, tmp_path, "killed", "--use_adaptive_loss")
    process = start("train.py", *args)
    run = tmp_path / "killed"
    wait_for((run / "last" / "training_state.pt").exists, process)
    process.kill()
    process.communicate()
    assert not (run / "metrics.json").exists()
    with open(run / "log.jsonl", "a") as log:
        log.write('{"kind": "train", "st')  # half of a line
    train.main([*args, "--resume"])
    assert_same_run(run, whole_run[0])


def assert_same_run(found, expected):
    for folder in ("last", "best"):
        weights = load_file(found / folder / "model.safetensors")
        for name, tensor in load_file(expected / folder / "model.safetensors").items():
            assert torch.equal(weights[name], tensor), name
    steps, expected_steps = ([(r["kind"], r["step"]) for r in log_of(run)] for run in (found, expected))
    assert steps == expected_steps
    names, expected_names = ({p.relative_to(run) for p in run.rglob("*")} for run in (found, expected))
    assert names == expected_names


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_to_stop_it_saves_in_the_middle_of_an_epoch(rooms, whole_run, tmp_path, number):
    args = arguments(rooms, tmp_path, "asked", "--use_adaptive_loss")
    process = start("train.py", *args)
    run = tmp_path / "asked"
    wait_for(lambda: len(log_of(run)) >= 1, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert f"{number.name}: saved in epoch" in out
    assert "--resume --experiment_name asked" in out
    state = torch.load(run / "last" / "training_state.pt", weights_only=True)
    assert (state["epoch"], state["step"]) != (0, 0)
    train.main([*args, "--resume"])
    assert_same_run(run, whole_run[0])


def test_a_loss_that_is_not_finite_stops_the_run(rooms, tmp_path, monkeypatch):
    """The checkpoint of the epoch before is kept, and the batch is named."""
    add_gradient = Trainer._add_gradient

    def poison(self, heard, depth):
        if (self.epoch, self.step) == (1, 2):
            heard = heard * float("nan")
        add_gradient(self, heard, depth)

    monkeypatch.setattr(Trainer, "_add_gradient", poison)
    with pytest.raises(SystemExit) as error:
        train.main(arguments(rooms, tmp_path, "nan", "--log_interval", "4"))
    message = str(error.value.code)
    assert "the loss of step 3 of epoch 2 is not finite" in message
    assert message.count(".wav") == 4
    state = torch.load(tmp_path / "nan" / "last" / "training_state.pt", weights_only=True)
    assert (state["epoch"], state["step"]) == (1, 0)
    assert all(torch.isfinite(t).all() for t in state["network"].values())


def test_a_run_is_never_overwritten(rooms, whole_run):
    run, _ = whole_run
    with pytest.raises(SystemExit) as error:
        train.main(arguments(rooms, run.parent, "whole"))
    assert "there is a run at" in str(error.value.code)


def test_the_kernel_backend_is_requested_for_the_whole_run(monkeypatch):
    """The fused layers have no argument for it."""
    requested = []
    monkeypatch.setattr(train, "train", lambda *_: requested.append(requested_backend()))
    train.main(["--device", "cpu", "--kernel_backend", "reference"])
    train.main(["--device", "cpu"])
    assert requested == ["reference", None]
    assert requested_backend() is None


def test_a_broken_data_set_is_named_before_anything_is_written(tmp_path):
    (tmp_path / "data").mkdir()
    with pytest.raises(SystemExit) as error:
        train.main(arguments(tmp_path / "data", tmp_path / "runs", "x"))
    assert str(tmp_path / "data") in str(error.value.code)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--device", "meta"], "--device meta"),
        (["--device", "cpu", "--kernel_backend", "cuda"], "backend 'cuda' cannot run cross_attention here"),
        (
            ["--batch_size", "19"],
            "--batch_size must be at most 18, the number of training samples, got 19",
        ),
        (["--accumulate", "5"], "--accumulate must be at most 4, the batches of an epoch, got 5"),
        (["--max_depth", "100"], r"audio_\d+\.wav: 20000 frames at 44.1 kHz, expected at least 25984"),
        (["--metric_threshold", "50"], "no depth map of the val split has a pixel deeper than 50 m"),
        (["--exclude_locations", "Attic"], "no location 'Attic'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_written(rooms, tmp_path, more, message):
    with pytest.raises(SystemExit) as error:
        train.main(arguments(rooms, tmp_path / "runs", "x", *more))
    assert re.search(message, str(error.value.code))
    assert not (tmp_path / "runs").exists()


def test_a_file_that_a_loading_process_cannot_read_is_named_in_one_line(rooms, tmp_path):
    root = shutil.copytree(rooms, tmp_path / "rooms")
    recordings = sorted((root / "Simulated" / "audio").iterdir())
    recordings[5].write_bytes(recordings[5].read_bytes()[:50_000])
    with pytest.raises(SystemExit) as error:
        train.main(arguments(root, tmp_path / "runs", "x", "--num_workers", "1"))
    message = str(error.value.code)
    assert f"{recordings[5]}: truncated, 50000 bytes" in message
    assert "\n" not in message


def test_recordings_without_depth_are_counted(rooms, tmp_path, capsys):
    root = shutil.copytree(rooms, tmp_path / "rooms")
    maps = BatVisionV2(root, "train").recordings[:2]
    for recording in maps:
        np.save(recording.depth, np.zeros_like(np.load(recording.depth)))
    with pytest.warns(UserWarning, match="no valid depth at all"):
        train.main(arguments(root, tmp_path, "run", "--nb_epochs", "1"))
    assert f"2 of 18 recordings without any valid depth, the first {maps[0].depth}" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ["--model", "unet", "--optimizer", "sgd", "--scheduler", "step"],
        ["--precision", "bf16", "--accumulate", "2", "--clip_gradient", "0"],
        ["--ear_width", "0.63", "--num_workers", "2"],
        ["--matching", "group_correlation", "--features", "magnitude", "ipd"],
        ["--matching", "concatenation", "--features", "gcc_phat", "--features_on", "device"],
        ["--features_on", "device", "--checkpoint_activations"],
        ["--no-cache"],
        ["--model", "unet_pix2pix", "--preprocessing", "official"],
        ["--model", "base_residual", "--features", "magnitude", "gcc_phat"],
    ],
)
def test_options_train(rooms, tmp_path, more):
    train.main(arguments(rooms, tmp_path, "run", "--nb_epochs", "1", *more))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["rmse"] < 100


def test_a_student_hears_what_its_teacher_saw(rooms, tmp_path, capsys):
    """The two commands; the student is then evaluated from sound alone."""
    train.main(arguments(rooms, tmp_path, "teacher", "--nb_epochs", "1", "--model", "adabins_teacher"))
    teacher = tmp_path / "teacher" / "best"
    train.main(
        arguments(
            rooms, tmp_path, "student", "--nb_epochs", "1",
            "--model", "adabins_distill", "--teacher", str(teacher),
        )
    )  # fmt: skip
    steps = [record for record in log_of(tmp_path / "student") if record["kind"] == "train"]
    assert {"loss", "recon", "depth", "bins", "features"} <= steps[0].keys()
    student = tmp_path / "student" / "best"
    evaluate.main([str(student), "--dataset_dir", str(rooms), "--controls", "--resamples", "10"])
    predict.main([str(student), str(rooms / "Simulated/audio"), "--output", str(tmp_path / "depth")])
    assert len(list((tmp_path / "depth").glob("*.ply"))) == 24
    capsys.readouterr()
    evaluate.main([str(teacher), "--dataset_dir", str(rooms), "--resamples", "10"])
    assert "the camera's picture" in capsys.readouterr().out
    for command, *more in (
        (predict.main, str(rooms / "Simulated/audio")),
        (evaluate.main, "--dataset_dir", str(rooms), "--controls"),
    ):
        with pytest.raises(SystemExit) as error:
            command([str(teacher), *more])
        assert "camera's picture" in str(error.value.code)


@pytest.mark.slow
def test_two_processes_are_stopped_and_one_goes_on(rooms, whole_run, tmp_path):
    """By torchrun; with batch norm over both, nearly the same comes out as of one process."""
    args = arguments(rooms, tmp_path, "two", "--use_adaptive_loss", "--sync_batchnorm")
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    process = start(*torchrun, "train.py", *args)
    run = tmp_path / "two"
    wait_for(lambda: len(log_of(run)) >= 5, process)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert out.count("saved in epoch") == 1
    assert "2 processes" in out
    expected = {(r["kind"], r["step"]): r for r in log_of(whole_run[0])}
    for record in log_of(run)[:5]:
        whole = expected[record["kind"], record["step"]]
        key = "loss" if record["kind"] == "train" else "rmse"
        assert record[key] == pytest.approx(whole[key], rel=2e-3)
    out = run_to_end(*args, "--resume")
    assert "continuing in epoch 2" in out
    rmse, whole_rmse = (json.loads((r / "metrics.json").read_text())["rmse"] for r in (run, whole_run[0]))
    assert rmse == pytest.approx(whole_rmse, rel=0.02)


@pytest.mark.slow
def test_a_batch_that_two_processes_cannot_share_is_refused(rooms, tmp_path):
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    args = arguments(rooms, tmp_path, "odd", "--batch_size", "5")
    process = start(*torchrun, "train.py", *args)
    _, err = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "train.py: batch_size is 5, which 2 processes cannot share equally" in err
    assert not (tmp_path / "odd").exists()


@pytest.mark.slow
def test_a_loading_process_that_dies_ends_the_run(rooms, tmp_path):
    args = arguments(rooms, tmp_path, "died", "--nb_epochs", "1000", "--num_workers", "1")
    process = start("train.py", *args)
    run = tmp_path / "died"
    wait_for((run / "last" / "training_state.pt").exists, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    loading = [pid for pid in children if b"train.py" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    os.kill(int(loading[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "train.py: a worker process that loads data died" in err
    assert "Traceback" not in err.rpartition("train.py:")[2]
    assert torch.load(run / "last" / "training_state.pt", weights_only=True)["epoch"] >= 1


def test_a_full_disk_while_saving_keeps_the_last_checkpoint(rooms, tmp_path, monkeypatch):
    sync, calls = os.fsync, 0

    def full(descriptor):
        nonlocal calls
        calls += "training_state" in os.readlink(f"/proc/self/fd/{descriptor}")
        if calls == 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SystemExit) as error:
        train.main(arguments(rooms, tmp_path, "full"))
    path = tmp_path / "full" / "last" / "training_state.pt"
    assert f"No space left on device, what was there is kept: '{path}'" in str(error.value.code)
    assert torch.load(path, weights_only=True)["epoch"] == 1
    assert not list((tmp_path / "full").rglob("*.tmp"))
    monkeypatch.undo()
    train.main(arguments(rooms, tmp_path, "full", "--resume"))


@pytest.mark.slow
def test_weights_and_biases_offline(rooms, tmp_path):
    pytest.importorskip("wandb", reason="wandb is an optional dependency")
    run_to_end(*arguments(rooms, tmp_path, "logged", "--nb_epochs", "1", "--use_wandb"))
    assert list((tmp_path / "logged" / "wandb").glob("offline-run-*"))


def test_the_loss_falls(rooms, tmp_path):
    """Twelve epochs on eighteen rooms: the network learns them."""
    train.main(arguments(rooms, tmp_path, "fit", "--nb_epochs", "12", "--no-augment"))
    losses = [record["recon"] for record in log_of(tmp_path / "fit") if record["kind"] == "train"]
    assert sum(losses[-4:]) < 0.8 * sum(losses[:4])
