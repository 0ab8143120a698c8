"""`benchmarks/compare_systems.py`: a tiny comparison from end to end, and its parts."""

import csv
import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from benchmarks import compare_systems
from benchmarks.comparison import comparison_report as report
from benchmarks.comparison.compared_systems import BASELINE, SYSTEMS
from benchmarks.comparison.figures import parameters, until, validations
from benchmarks.comparison.runs import ROOT, Run, shuffle_labels, train_all
from binaural.data import BatVisionV2
from binaural.simulate import simulate_dataset
from binaural.training.options import parse_options

SMALL = (
    "--dataset", "batvisionv2", "--image_size", "32", "--max_depth", "10", "--base_channels", "4",
    "--batch_size", "4", "--num_workers", "0", "--log_interval", "1", "--precision", "fp32",
)  # fmt: skip
CONFIGURATION = {
    "date": "2026-11-25", "processor": "abacus", "torch": "2", "precision": "float32", "threads": 2,
    "dataset": "simulated", "train": 8, "val": 3, "test": 3, "image_size": 64, "max_depth": 12.0,
    "base_channels": 16, "nb_epochs": 8, "batch_size": 16, "seeds": [0, 1],
    "constant": {"rmse": 1.4, "abs_rel": 0.7, "delta1": 0.2},
}  # fmt: skip


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    root = tmp_path_factory.mktemp("rooms") / "simulated"
    return simulate_dataset(root, rooms_train=8, rooms_val=3, rooms_test=3, workers=1, progress=False)


def make_result(rmse, **other):
    defined = {
        "rmse": rmse, "abs_rel": [0.2] * len(rmse), "delta1": [0.6] * len(rmse), "parameters": 2_000_000,
        "step_seconds": 0.1, "sees": False, "left_muted": [2.0], "right_muted": [2.0], "swapped": [0.8],
        "with_mirrored": [0.95], "with_original": [0.2], "left_right_difference": [0.9],
        "left_right_truth": [0.7],
        "time_to_quality": {"steps": [0.4, None], "time": [0.6, None]},
    }  # fmt: skip
    return defined | other


@pytest.fixture
def results():
    return {
        "binaural": make_result([0.7, 0.8]),
        "unet": make_result([0.9, 1.1], with_mirrored=[]),
        "adabins_teacher": make_result([0.3, 0.3], sees=True),
        "unet, shuffled labels": make_result([1.4, 1.5]),
    }


@pytest.mark.slow
def test_a_comparison_from_end_to_end(rooms, tmp_path, capsys):
    names = ["unet", "adabins_distill", "unet, shuffled labels"]
    command = [
        "--systems", *names, "--seeds", "3", "--nb_epochs", "1", "--dataset_dir", str(rooms), "--jobs", "2",
        "--runs_dir", str(tmp_path / "runs"), "--rounds", "2", "--output", str(tmp_path / "results"),
        "--", *SMALL,
    ]  # fmt: skip
    compare_systems.main(command)
    found = json.loads((tmp_path / "results/compare_systems.json").read_text())
    assert list(found) == [*names, "configuration"]
    for name in names:
        run = tmp_path / "runs" / (name.replace(", ", "-").replace(" ", "-") + "-seed3")
        metrics = json.loads((run / "metrics.json").read_text())
        for metric in ("rmse", "abs_rel", "delta1"):
            assert found[name][metric] == [pytest.approx(metrics[metric], rel=1e-4)]
        assert found[name]["step_seconds"] > 0
        assert found[name]["parameters"] > 1000
    assert found["unet"]["time_to_quality"] == {"steps": [1.0], "time": [1.0]}
    assert found["configuration"]["train"] == 8
    text = (tmp_path / "results/compare_systems.md").read_text()
    assert "8 recordings to train" in text
    assert "shuffled" not in text[: text.index("## Controls")]
    picture = Image.open(tmp_path / "results/compare_systems.png").convert("L")
    assert picture.getextrema()[0] < 50

    log = tmp_path / "runs/unet-seed3/log.jsonl"
    before = log.stat().st_mtime_ns
    capsys.readouterr()
    compare_systems.main(command)  # all is done: nothing is trained again
    assert log.stat().st_mtime_ns == before
    assert "4 of 4 runs are done already" in capsys.readouterr().out
    with pytest.raises(SystemExit) as error:
        compare_systems.main([*command, "--learning_rate", "0.1"])
    assert "was made with learning_rate = 0.001, expected 0.1" in str(error.value.code)


@pytest.mark.parametrize("command", [["benchmarks/compare_systems.py"], ["-m", "benchmarks.compare_systems"]])
def test_it_runs_as_a_file_and_as_a_module(command):
    text = subprocess.run(
        [sys.executable, *command, "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    assert all(name in text.replace("\n", " ") for name in ("unet_pix2pix", "--seeds", "--jobs"))


def test_every_front_end_is_measured_with_both_networks():
    features = {model: set() for model in ("binaural", "unet")}
    for name, system in SYSTEMS.items():
        taught = ("--teacher", "x") if system.taught else ()
        options = parse_options([*system.arguments, *taught])
        if options.model in features and not system.shuffled and options.matching == "attention":
            assert name.startswith(options.model)
            features[options.model].add(tuple(options.features))
    assert features["binaural"] == features["unet"]
    assert {name for f in features["unet"] for name in f} == {"magnitude", "ipd", "gcc_phat", "waveform"}


def test_systems_share_a_cache_of_the_same_samples():
    assert {SYSTEMS[name].samples for name in ("unet", "binaural", "unet_pix2pix")} == {"magnitude"}
    assert SYSTEMS["unet, magnitude+ipd"].samples == SYSTEMS["binaural, magnitude+ipd"].samples
    others = ("unet", "unet, magnitude+ipd", "unet, gcc_phat", "adabins_teacher", "adabins_distill",
              "unet, shuffled labels")  # fmt: skip
    assert len({SYSTEMS[name].samples for name in others}) == len(others)


def test_folders_of_runs_differ(tmp_path):
    folders = {Run(name, seed, tmp_path, tmp_path, ()).folder for name in SYSTEMS for seed in (0, 1)}
    assert len(folders) == 2 * len(SYSTEMS)


def test_a_run_from_before_an_option_is_another_run(tmp_path):
    run = Run("binaural", 0, tmp_path, tmp_path, ())
    run.folder.mkdir()
    config = dict(vars(run.options))
    (run.folder / "config.json").write_text(json.dumps(config))
    run.check()
    del config["view_levels"]
    (run.folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"made with view_levels = \[\], expected \[3\]"):
        run.check()


def test_parameters_are_the_networks(tmp_path):
    run = Run("unet_pix2pix", 0, tmp_path, tmp_path, ("--base_channels", "64", "--image_size", "256"))
    assert parameters(run) == 54_408_833


def test_a_failed_run_shows_its_output(tmp_path):
    run = Run("unet", 0, tmp_path / "runs", tmp_path, SMALL)
    with pytest.raises(RuntimeError, match=r"unet-seed0 failed with status 1(.|\n)*train.csv"):
        train_all([run], jobs=1)


def test_shuffled_labels_are_those_of_other_rooms(rooms, tmp_path):
    shuffled = shuffle_labels(rooms, tmp_path / "shuffled")

    def pairs(root, split):
        with open(root / "Simulated" / f"{split}.csv", newline="") as file:
            return [(row["audio file name"], row["depth file name"], row["camera file name"])
                    for row in csv.DictReader(file)]  # fmt: skip

    own, others = pairs(rooms, "train"), pairs(shuffled, "train")
    assert [row[0] for row in own] == [row[0] for row in others]
    assert sorted(row[1] for row in own) == sorted(row[1] for row in others)
    assert all(a[1] != b[1] for a, b in zip(own, others, strict=True))
    assert all(depth[6:-4] == camera[7:-5] for _, depth, camera in others)
    for split in ("val", "test"):
        assert pairs(rooms, split) == pairs(shuffled, split)
    a, b = BatVisionV2(rooms, "train", image_size=16), BatVisionV2(shuffled, "train", image_size=16)
    assert torch.equal(a[0][0], b[0][0])
    assert not torch.equal(a[0][1], b[0][1])
    simulate_dataset(shuffled, rooms_train=8, rooms_val=3, rooms_test=3)  # it counts as the same rooms
    shuffle_labels(rooms, shuffled)
    assert pairs(shuffled, "train") == others
    with pytest.raises(FileNotFoundError, match="no <location>/train.csv"):
        shuffle_labels(tmp_path, tmp_path / "x")


def test_time_to_quality_is_steps_times_the_time_of_a_step(tmp_path):
    run = Run("unet", 0, tmp_path, tmp_path, SMALL)
    run.folder.mkdir()
    log = [
        {"kind": "train", "step": 10},
        {"kind": "validation", "step": 15, "rmse": 1.5},
        {"kind": "train", "step": 25},
        {"kind": "validation", "step": 25, "rmse": 1.2},
    ]
    (run.folder / "log.jsonl").write_text("".join(json.dumps(record) + "\n" for record in log))
    found = validations(run)
    assert found == [(15, 1.5), (25, 1.2)]
    assert until(found, 1.5) == 15
    assert until(found, 1.3) == 25
    assert until(found, 1.0) is None
    never = [[(15, 1.25), (25, 1.1)], [(15, 1.1)]]
    assert compare_systems.time_to_quality([run, run], never, 2.0) == {
        "steps": [None] * 2,
        "time": [None] * 2,
    }
    easier = [[(5, 1.3), (25, 1.4)], [(10, 1.6)]]
    ratios = compare_systems.time_to_quality([run, run], easier, 2.0)
    assert ratios == {"steps": [5.0, 1.5], "time": [10.0, 3.0]}


def test_the_tables_say_what_was_measured(results, tmp_path):
    text = report.write(results, CONFIGURATION, tmp_path).read_text()
    assert "| `binaural` | 0.750 ± 0.071 | 0.200 ± 0.000 | 0.600 ± 0.000 | -25.0% | 2.00 M | 100 |" in text
    assert "`adabins_teacher` (sees the camera's picture)" in text
    assert "| best constant | 1.400 | 0.700 | 0.200 |  |  |  |" in text
    assert "| best constant | 1.400 |  |  |" in text[text.index("## Controls") :]
    assert "| `unet, shuffled labels` | 1.450 |" in text
    assert "| `unet` | 1.000 | 2.000 | 2.000 | 0.800 | - | 0.200 | 0.900 |" in text
    assert "| `binaural` | never | never | (1 of 2) |" in text
    assert "2026-11-25, abacus" in text
    assert "seeds 0, 1" in text
    found = json.loads((tmp_path / "compare_systems.json").read_text())
    assert found[BASELINE]["rmse"] == [0.9, 1.1]
    assert {path.suffix for path in tmp_path.iterdir()} == {".md", ".json", ".png"}


def test_the_table_in_the_docs_is_replaced(results, tmp_path):
    page = tmp_path / "results.md"
    begin, end = report.MARKERS
    page.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    report.write_docs(page, results, CONFIGURATION)
    report.write_docs(page, results, CONFIGURATION)
    text = page.read_text()
    assert text.startswith(f"before\n{begin}\n| ")
    assert text.endswith(f"\n{end}\nafter\n")
    assert "old" not in text
    assert text.count("| `binaural` |") == 1
    page.write_text("nothing")
    with pytest.raises(ValueError, match="expected the lines"):
        report.write_docs(page, results, CONFIGURATION)
    assert page.read_text() == "nothing"


def test_the_docs_have_a_place_for_the_table():
    text = (ROOT / "docs/results.md").read_text()
    assert 0 < text.find(report.MARKERS[0]) < text.find(report.MARKERS[1])
