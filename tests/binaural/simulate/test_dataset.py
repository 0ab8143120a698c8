import csv
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import trimesh
from PIL import Image

from binaural.simulate import dataset, simulate_dataset
from binaural.simulate.__main__ import main

SMALL = {"rooms_train": 5, "rooms_val": 2, "rooms_test": 2, "depth_width": 32, "progress": False}


def contents(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()
    }


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    root = tmp_path_factory.mktemp("simulated") / "data"
    assert simulate_dataset(root, workers=1, **SMALL) == root
    return root


def rows(root: Path, split: str) -> list[dict[str, str]]:
    with open(root / "Simulated" / f"{split}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_layout_is_that_of_batvision_v2(complete):
    assert not complete.with_name("data.partial").exists()
    assert {len(rows(complete, split)) for split in ("train", "val", "test")} == {5, 2}
    row = rows(complete, "val")[0]
    assert list(row) == [
        "index", "time", "left audio time", "right audio time", "audio path", "audio file name",
        "camera time", "camera path", "camera file name", "depth time", "depth path", "depth file name",
    ]  # fmt: skip
    audio = complete / row["audio path"] / row["audio file name"]
    about = soundfile.info(audio)
    assert (about.samplerate, about.channels, about.frames, about.subtype) == (44100, 2, 20000, "PCM_32")
    samples, _ = soundfile.read(audio, dtype="int32")
    assert np.all(samples % 256 == 0)  # 24 bits in the container of 32
    depth = np.load(complete / row["depth path"] / row["depth file name"], allow_pickle=False)
    assert (depth.dtype, depth.shape) == (np.uint16, (18, 32))
    with Image.open(complete / row["camera path"] / row["camera file name"]) as picture:
        assert (picture.format, picture.size) == ("JPEG", (32, 18))


def test_one_loader_reads_it(complete):
    from binaural.data import BatVisionV2

    samples = BatVisionV2(complete, "train", max_depth=10.0, image_size=32)
    assert len(samples) == 5


def test_full_resolution_is_that_of_the_real_camera():
    place = dataset.random_place(dataset.Parameters(1, 1, 1, 0, 1280, None), 0, None)
    recording = dataset.simulate_recording(*place, depth_width=1280)
    assert (recording.depth.dtype, recording.depth.shape) == (np.uint16, (720, 1280))
    assert recording.picture.shape == (720, 1280, 3)


def test_splits_share_no_recording_and_no_room(complete):
    names = [row["audio file name"] for split in ("train", "val", "test") for row in rows(complete, split)]
    assert len(set(names)) == len(names) == 9
    parameters = dataset.Parameters(5, 2, 2, 0, 32, None)
    sizes = {tuple(dataset.random_place(parameters, index, None)[0].room) for index in range(9)}
    assert len(sizes) == 9


def test_test_rooms_do_not_depend_on_the_number_of_training_rooms(complete, tmp_path):
    larger = simulate_dataset(tmp_path / "larger", workers=1, **(SMALL | {"rooms_train": 6}))
    for first, second in zip(rows(complete, "test"), rows(larger, "test"), strict=True):
        assert first["index"] != second["index"]
        paths = [
            root / row["audio path"] / row["audio file name"]
            for root, row in ((complete, first), (larger, second))
        ]
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_same_bytes_with_any_number_of_workers(complete, tmp_path):
    assert contents(simulate_dataset(tmp_path / "again", workers=2, **SMALL)) == contents(complete)


def test_another_seed_gives_other_rooms(complete, tmp_path):
    other = contents(simulate_dataset(tmp_path / "other", seed=1, workers=1, **SMALL))
    same = [name for name, data in contents(complete).items() if other[name] == data]
    assert all(name.endswith(".csv") for name in same)


def test_complete_data_is_left_alone(complete):
    before = {path: path.stat().st_mtime_ns for path in complete.rglob("*")}
    start = time.perf_counter()
    simulate_dataset(complete, workers=1, **SMALL)
    assert time.perf_counter() - start < 0.5
    assert {path: path.stat().st_mtime_ns for path in complete.rglob("*")} == before


def test_failure_midway_leaves_nothing_half_done_and_resumes_to_the_same_bytes(
    complete, tmp_path, monkeypatch
):
    root, real, calls = tmp_path / "data", dataset.simulate_recording, []

    def failing(*arguments):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(dataset, "simulate_recording", failing)
    with pytest.raises(KeyboardInterrupt):
        simulate_dataset(root, workers=1, **SMALL)
    assert not root.exists()
    calls.clear()
    monkeypatch.setattr(dataset, "simulate_recording", lambda *a: calls.append(1) or real(*a))
    simulate_dataset(root, workers=1, **SMALL)
    assert len(calls) == 9 - 3  # three were kept
    assert contents(root) == contents(complete)


@pytest.mark.slow
def test_killed_run_resumes_to_the_same_bytes_and_leaves_no_worker_behind(tmp_path):
    root, partial = tmp_path / "data", tmp_path / "data.partial"
    options = "--rooms_train 30 --rooms_val 1 --rooms_test 1 --depth_width 32 --workers 2 --no_progress"
    command = [sys.executable, "-m", "binaural.simulate", str(root), *options.split()]
    process = subprocess.Popen(command, start_new_session=True)
    deadline = time.monotonic() + 60
    while len(list(partial.rglob("*.npy"))) < 6:
        assert process.poll() is None, "ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not root.exists()
    while _session_members(process.pid):
        assert time.monotonic() < deadline, "workers outlived the process that started them"
        time.sleep(0.05)
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() == str(root)
    whole = simulate_dataset(tmp_path / "whole", 30, 1, 1, depth_width=32, workers=1, progress=False)
    assert contents(root) == contents(whole)


def _session_members(session: int) -> list[int]:
    """Processes of a session that are still running."""
    members = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, found = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # ended meanwhile
            continue
        if int(found) == session and state != "Z":
            members.append(int(stat.parent.name))
    return members


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopped_command_says_so_and_leaves_no_data_set(tmp_path, number):
    root = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-m", "binaural.simulate", str(root), "--rooms_train", "400", "--workers", "2"],
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs tests in the background has children ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "data.partial").rglob("*.npy")):
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    assert "Traceback" not in errors
    assert not root.exists()


def test_other_content_is_refused_and_untouched(complete, tmp_path):
    with pytest.raises(FileExistsError, match="seed 0 there, 3 asked for"):
        simulate_dataset(complete, seed=3, workers=1, **SMALL)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match=r"holds files but no simulation\.json"):
        simulate_dataset(tmp_path, workers=1, **SMALL)
    with pytest.raises(FileExistsError, match="found a file"):
        simulate_dataset(tmp_path / "notes.txt", workers=1, **SMALL)
    partial = tmp_path / "new.partial"
    partial.mkdir()
    (partial / "simulation.json").write_text(json.dumps({"seed": 9}))
    with pytest.raises(FileExistsError, match="other parameters"):
        simulate_dataset(tmp_path / "new", workers=1, **SMALL)
    assert [path.name for path in partial.iterdir()] == ["simulation.json"]
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_filled(complete, tmp_path):
    (tmp_path / "empty").mkdir()
    assert contents(simulate_dataset(tmp_path / "empty", workers=1, **SMALL)) == contents(complete)


def test_a_linked_folder_is_filled(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    root = simulate_dataset(tmp_path / "data", 1, 1, 1, depth_width=32, workers=1, progress=False)
    assert root == tmp_path / "data"
    assert root.is_symlink()
    assert len(list((tmp_path / "disk/Simulated/audio").glob("*.wav"))) == 3


def test_a_mount_point_is_refused_before_any_room(tmp_path, monkeypatch):
    def busy(self):
        raise OSError(errno.EBUSY, "Device or resource busy", str(self))

    (tmp_path / "data").mkdir()
    monkeypatch.setattr(Path, "rmdir", busy)
    monkeypatch.setattr(dataset, "simulate_recording", pytest.fail)
    with pytest.raises(OSError, match=r"mount point does not allow; name a folder in it.*data'") as error:
        simulate_dataset(tmp_path / "data", **SMALL)
    assert error.value.errno == errno.EBUSY
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_the_callers_handler_of_sigterm_is_restored(complete, tmp_path, capsys):
    def handler(*_):
        pass

    before = signal.signal(signal.SIGTERM, handler)
    try:
        assert main([str(tmp_path / "data"), "--rooms_train", "0"]) == 2
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_cores_are_counted_where_the_system_knows_no_affinity(monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert dataset.available_cores() >= 1


def test_a_missing_ray_caster_is_named_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install embreex"):
        simulate_dataset(tmp_path / "data", **SMALL)
    assert not list(tmp_path.iterdir())


def test_rooms_of_a_mesh(tmp_path):
    room = trimesh.creation.box((6, 3, 5))
    room.export(tmp_path / "flat.glb")
    root = simulate_dataset(tmp_path / "data", mesh=tmp_path / "flat.glb", workers=1, **SMALL)
    depth = np.stack([np.load(file) for file in (root / "Simulated" / "depth").iterdir()])
    assert 0.4 < (depth > 0).mean() < 0.95
    assert depth.max() < 1000 * np.sqrt(6**2 + 5**2)
    assert json.loads((root / "simulation.json").read_text())["mesh"] is not None
    trimesh.creation.box((6, 3, 5.5)).export(tmp_path / "flat.glb")
    with pytest.raises(FileExistsError, match="mesh"):  # another mesh under the same name
        simulate_dataset(root, mesh=tmp_path / "flat.glb", workers=1, **SMALL)


def test_a_mesh_without_a_place_to_stand_is_refused(tmp_path):
    trimesh.creation.box((1.5, 1.5, 0.7)).export(tmp_path / "low.stl")
    with pytest.raises(ValueError, match=r"low\.stl.*found no place"):
        simulate_dataset(tmp_path / "data", mesh=tmp_path / "low.stl", workers=1, **SMALL)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rooms_train": 0}, "rooms_train: expected at least 1, got 0"),
        ({"seed": -1}, "seed: expected 0 or more"),
        ({"depth_width": 100}, "depth_width: expected a multiple of 16"),
        ({"workers": 0}, "workers: expected at least 1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        simulate_dataset(tmp_path / "new" / "data", **(SMALL | {"workers": 1} | arguments))
    assert not (tmp_path / "new").exists()


def test_command_reports_errors_in_one_line(tmp_path, capsys):
    assert main([str(tmp_path / "data"), "--mesh", str(tmp_path / "none.glb")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: mesh")
    assert error.count("\n") == 1
    assert main([str(tmp_path / "data"), "--report", "report.png"]) == 2
    assert "--real" in capsys.readouterr().err


def test_help_names_layout_and_defaults(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for word in ("BatVision V2", "default: 1500", "--mesh", "--report", "examples:"):
        assert word in text
