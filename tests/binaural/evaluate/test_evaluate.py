"""`python -m binaural.evaluate` on a handful of rooms."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch

from binaural import load_network
from binaural.data import BatVisionV1, BatVisionV2
from binaural.evaluate.__main__ import main
from binaural.metrics import METRICS, depth_metrics

pytestmark = pytest.mark.usefixtures("one_thread")


def evaluate(folder, rooms, *more):
    """The summary and the table that the command writes."""
    output = folder / "out.json"
    main([str(folder), "--dataset_dir", str(rooms), "--output", str(output), "--resamples", "50", *more])
    with open(folder / "out.csv", newline="") as file:
        return json.loads(output.read_text()), list(csv.DictReader(file))


def by_hand(folder, rooms, **options):
    """Metrics [N, 7] of the test split through the data set's own items, and true depth."""
    data = BatVisionV2(rooms, "test", **{"max_depth": 10.0, "image_size": 32, **options})
    spectrogram, depth = map(torch.stack, zip(*data, strict=True))
    with torch.no_grad():
        prediction = load_network(folder)(spectrogram)
    return prediction, depth


@pytest.mark.parametrize("preprocessing", ["default", "official"])
def test_images_and_means_equal_the_metrics_of_the_data_set(rooms, save_network, preprocessing, capsys):
    folder = save_network("a", preprocessing=preprocessing)
    summary, table = evaluate(folder, rooms, "--metric_threshold", "0.5")
    prediction, depth = by_hand(folder, rooms, preprocessing=preprocessing)
    expected = depth_metrics(prediction, depth, threshold=0.5).numpy()
    found = np.array([[float(row[name]) for name in METRICS] for row in table])
    np.testing.assert_allclose(found, expected, rtol=2e-4)
    assert [int(row["pixels"]) for row in table] == (depth > 0.5).flatten(1).sum(1).tolist()
    for name, mean in zip(METRICS, expected.mean(0), strict=True):
        value = summary["metrics"][name]
        assert value["mean"] == pytest.approx(mean, rel=1e-4)
        assert value["low"] <= value["mean"] <= value["high"]
    assert summary["metrics"]["rmse"]["low"] < summary["metrics"]["rmse"]["high"]
    assert summary["images"] == len(table) == 5
    assert summary["protocol"]["threshold"] == 0.5
    assert summary["protocol"]["preprocessing"] == preprocessing
    assert "true depth above 0.5 m; beyond 10 m it is taken as that depth" in capsys.readouterr().out


def test_bands_hold_the_pixels_of_their_depths(rooms, save_network):
    folder = save_network("a")
    summary, _ = evaluate(folder, rooms, "--bands", "0", "1.5", "3")
    prediction, depth = by_hand(folder, rooms)
    assert list(summary["bands"]) == ["0-1.5 m", "1.5-3 m", "3+ m"]
    middle = torch.where((depth > 1.5) & (depth <= 3), depth, 0.0)
    expected = depth_metrics(prediction, middle)
    seen = (middle > 0).flatten(1).any(1)
    found = summary["bands"]["1.5-3 m"]
    assert found["images"] == int(seen.sum())
    assert found["pixels"] == int((middle > 0).sum())
    assert found["metrics"]["rmse"]["mean"] == pytest.approx(float(expected[seen, 0].mean()), rel=1e-5)
    assert sum(band["pixels"] for band in summary["bands"].values()) == int((depth > 0).sum())


@pytest.mark.parametrize("beyond", ["clamp", "exclude"])
def test_depth_beyond_the_networks_is_handled_as_stated(rooms, save_network, beyond):
    """A network that sees 2 m, in rooms of more."""
    folder = save_network("near", max_depth=2.0)
    summary, table = evaluate(folder, rooms, "--beyond", beyond)
    far = torch.stack(list(BatVisionV2(rooms, "test", max_depth=100.0, image_size=32).depths()))
    valid, beyond_reach = (far > 0).flatten(1), (far > 2.0).flatten(1)
    assert beyond_reach.any()
    counted = valid if beyond == "clamp" else valid & ~beyond_reach
    assert [int(row["pixels"]) for row in table] == counted.sum(1).tolist()
    assert summary["bands"]["2-4 m"]["pixels"] == 0
    assert summary["bands"]["2-4 m"]["metrics"]["rmse"]["mean"] is None


def test_comparison_is_paired_and_its_sign_is_first_minus_second(rooms, save_network, capsys):
    """A network against itself with its output raised by 5 m, and at another resolution."""
    near = save_network("a")
    network = load_network(near)
    network.decoder.head.bias.data += 20.0  # all that it says is max_depth
    far = save_network("far", network)
    summary, table = evaluate(near, rooms, "--compare", str(far))
    difference = summary["comparison"]["difference"]
    first, second = (np.array([float(row[prefix + "rmse"]) for row in table]) for prefix in ("", "second_"))
    assert difference["rmse"]["mean"] == pytest.approx((first - second).mean(), rel=1e-4)
    assert difference["rmse"]["high"] < 0 < difference["delta1"]["low"]
    assert difference["rmse"]["first_better"] == 1.0
    assert summary["second"]["metrics"]["rmse"]["mean"] == pytest.approx(second.mean(), rel=1e-4)
    out = capsys.readouterr().out
    assert out.count("first better; first better on 100%") >= 5
    assert "second better;" not in out


def test_compared_with_itself_nothing_differs(rooms, save_network):
    folder = save_network("a")
    summary, _ = evaluate(folder, rooms, "--compare", str(folder))
    for value in summary["comparison"]["difference"].values():
        assert value["mean"] == value["low"] == value["high"] == value["first_better"] == 0


def test_networks_of_different_size_share_one_truth(rooms, save_network):
    small, large = save_network("small"), save_network("large", image_size=64, max_depth=12.0)
    summary, table = evaluate(large, rooms, "--compare", str(small))
    assert summary["protocol"]["image_size"] == 64
    assert summary["protocol"]["max_depth"] == 10.0
    assert summary["comparison"]["images"] == 5
    assert {"rmse", "second_rmse"} <= table[0].keys()


def test_trained_on_one_data_set_tested_on_another(tmp_path, rooms, save_network):
    """The rooms in version 1's layout, whose recordings begin later: the figures are those of version 2's."""
    root = tmp_path / "v1"
    root.mkdir()
    data = BatVisionV2(rooms, "test", max_depth=10.0, image_size=32)
    lines = ["depth path,audio path left,audio path right"]
    for index, recording in enumerate(data.recordings):
        for name, ear in zip(("left", "right"), data.read_recording(index), strict=True):
            lead = np.zeros(BatVisionV1.LEAD_IN - BatVisionV2.LEAD_IN, np.float32)
            np.save(root / f"{name}_{index}.npy", np.concatenate((lead, ear.numpy())))
        shutil.copy(recording.depth, root / f"depth_{index}.npy")
        lines.append(f"depth_{index}.npy,left_{index}.npy,right_{index}.npy")
    (root / "test.csv").write_text("\n".join(lines) + "\n")
    folder = save_network("a")
    own, own_table = evaluate(folder, rooms)
    other, table = evaluate(folder, root, "--dataset", "batvisionv1")
    assert other["metrics"] == own["metrics"]
    assert [row["rmse"] for row in table] == [row["rmse"] for row in own_table]
    assert [row["file"] for row in table] == [f"left_{index}.npy" for index in range(5)]
    assert other["protocol"]["dataset"] == "batvisionv1"
    assert (own["input"].split()[1], other["input"].split()[1]) == ("0", "711")


def test_seed_decides_the_intervals(rooms, save_network):
    folder = save_network("a")
    first, _ = evaluate(folder, rooms, "--seed", "1")
    again, _ = evaluate(folder, rooms, "--seed", "1")
    other, _ = evaluate(folder, rooms, "--seed", "2")
    assert first == again
    assert first["metrics"]["rmse"] != other["metrics"]["rmse"]


def test_locations_are_told_apart_and_chosen(tmp_path, rooms, save_network):
    """The same rooms twice, under two names."""
    root = tmp_path / "two"
    for name in ("Attic", "Hall"):
        (root / name).mkdir(parents=True)
        for part in ("audio", "depth"):
            (root / name / part).symlink_to(rooms / "Simulated" / part)
        table = (rooms / "Simulated/test.csv").read_text().replace("Simulated/", f"{name}/")
        (root / name / "test.csv").write_text(table)
    folder = save_network("a")
    both, _ = evaluate(folder, root)
    assert {name: value["images"] for name, value in both["locations"].items()} == {"Attic": 5, "Hall": 5}
    assert both["locations"]["Attic"]["metrics"] == both["locations"]["Hall"]["metrics"]
    one, table = evaluate(folder, root, "--locations", "Hall")
    assert list(one["locations"]) == ["Hall"]
    assert {row["location"] for row in table} == {"Hall"}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset", "batvisionv1", "--locations", "Attic"], "batvisionv1 has no locations"),
        (["--locations", "Cellar"], "no location 'Cellar'"),
        (["--metric_threshold", "10"], "threshold must lie between"),
        (["--bands", "2", "1"], "edges that ascend"),
        (["--device", "abacus"], "--device abacus"),
        (["--output", "out.txt"], "must end in .json"),
        (["--output", "nowhere/out.json"], "no folder nowhere"),
    ],
)
def test_wrong_options_are_named(rooms, save_network, more, message):
    with pytest.raises(SystemExit) as error:
        main([str(save_network("a")), "--dataset_dir", str(rooms), *more])
    assert message in str(error.value.code)


def test_wrong_checkpoints_are_named(rooms, save_network, tmp_path):
    folder = save_network("a")
    for path, message in ((tmp_path / "none", "not found"), (folder, "does not say how")):
        if path == folder:
            config = json.loads((folder / "config.json").read_text())
            del config["input"]
            (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(SystemExit) as error:
            main([str(path), "--dataset_dir", str(rooms)])
        assert message in str(error.value.code)


def test_recordings_need_a_folder(save_network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for more, message in (
        ([], "no folder data/simulated"),
        (["--dataset", "batvisionv2"], "batvisionv2 needs --dataset_dir"),
    ):
        with pytest.raises(SystemExit) as error:
            main([str(save_network("a")), *more])
        assert message in str(error.value.code)
