import json
import os
import re
from dataclasses import asdict

import pytest

from binaural.models import BinauralAttentionOptions
from binaural.training.build import make_network
from binaural.training.options import DEFAULTS, MODEL_OPTION_NAMES, parse_options


def test_defaults_by_dataset(tmp_path):
    small = parse_options([])
    assert (small.dataset, small.image_size, small.base_channels) == ("simulated", 64, 16)
    full = parse_options(["--dataset", "batvisionv2", "--dataset_dir", str(tmp_path)])
    assert (full.image_size, full.base_channels, full.max_depth) == (256, 64, 30.0)
    given = parse_options(
        ["--dataset", "batvisionv2", "--dataset_dir", str(tmp_path), "--base_channels", "32"]
    )
    assert given.base_channels == 32
    assert full.num_workers == min(8, len(os.sched_getaffinity(0)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch_size", "0"], "expected a whole number of at least 1, got '0'"),
        (["--learning_rate", "nan"], "expected a number above 0, got 'nan'"),
        (["--learning_rate", "fast"], "expected a number above 0, got 'fast'"),
        (["--lambda_edge", "-1"], "expected a number of at least 0, got '-1'"),
        (["--lambda_edge", "inf"], "expected a number of at least 0, got 'inf'"),
        (["--model", "resnet"], "invalid choice: 'resnet'"),
        (["--dataset", "batvisionv2"], "needs --dataset_dir"),
        (["--dataset", "batvisionv2", "--dataset_dir", "nowhere"], "there is no folder nowhere"),
        (["--image_size", "65"], "multiple of 16"),
        (["--batch_size", "1501"], "--batch_size must be at most 1500, the number of training samples, got"),
        (["--accumulate", "94"], "--accumulate must be at most 93, the batches of an epoch, got 94"),
        (["--heads", "4"], "unrecognized arguments: --heads"),
        (["--max_depth", "77"], "simulated recordings end before the echo from 77 m"),
        (["--seed", str(2**63)], "--seed must be below 2^63"),
        (["--attention_levels", "2", "6"], "different levels from 1 to 5"),
        (["--features", "magnitude", "magnitude"], "--features must be different ones of"),
        (["--features", "camera"], "invalid choice: 'camera'"),
        (["--features", "ipd", "--preprocessing", "official"], "has magnitude alone"),
        (["--model", "adabins_teacher", "--features", "ipd"], "the input of adabins_teacher is the camera"),
        (["--model", "adabins_distill"], "train the teacher first, with --model adabins_teacher"),
        (["--model", "unet", "--teacher", "x"], "--teacher, a folder"),
        (
            ["--model", "base_residual", "--lambda_edge", "1"],
            "--lambda_edge is an option of binaural and unet",
        ),
        (["--model", "unet_pix2pix", "--use_adaptive_loss"], "got --model unet_pix2pix"),
        (["--model", "unet", "--attention_levels", "3"], "--attention_levels is an option of binaural, got"),
        (["--ear_width", "0"], "expected a number above 0"),
        (["--exclude_locations", "Attic"], "simulated has no locations"),
        (["--experiment_name", "../x"], "without a path"),
        (["--resume"], "--resume needs --experiment_name"),
        (["--resume", "--experiment_name", "never"], "there is no run at"),
        (["--lambda_recon", "0", "--lambda_edge", "0", "--lambda_smooth", "0"], "must not all be 0"),
    ],
)
def test_refusals(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as error:
        parse_options(arguments)
    assert error.value.code == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_resume_takes_the_saved_options(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    saved = vars(parse_options(["--model", "unet", "--batch_size", "4", "--experiment_name", "run"]))
    (run / "config.json").write_text(json.dumps({k: v for k, v in saved.items() if k != "resume"}))
    where = ["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)]
    options = parse_options([*where, "--num_workers", "1", "--model", "unet"])
    assert (options.model, options.batch_size, options.num_workers) == ("unet", 4, 1)
    with pytest.raises(SystemExit):
        parse_options([*where, "--batch_size", "8"])
    assert "started with batch_size = 4, which cannot become 8" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "before", "given"),
    [
        ("symmetric", False, ["--symmetric"]),
        ("view_levels", [], ["--view_levels", "3"]),
        ("skip_levels", [1, 2, 3, 4], ["--skip_levels", "3"]),
    ],
)
def test_runs_from_before_an_option_go_on_without(name, before, given, tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    saved = vars(parse_options(["--experiment_name", "run"]))
    assert saved[name]
    (run / "config.json").write_text(json.dumps({k: v for k, v in saved.items() if k != name}))
    where = ["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)]
    assert vars(parse_options(where))[name] == before
    with pytest.raises(SystemExit):
        parse_options([*where, *given])
    assert f"started with {name} = {before!r}" in capsys.readouterr().err


def test_levels_of_the_view_transform(capsys):
    assert parse_options([]).view_levels == [3]
    assert parse_options(["--view_levels"]).view_levels == []
    assert parse_options(["--model", "unet"]).view_levels == []
    assert parse_options(["--model", "unet", "--view_levels", "3"]).view_levels == [3]
    for wrong, message in (
        (["--view_levels", "6"], "--view_levels must be different levels from 1 to 5, got (6,)"),
        (
            ["--view_levels", "3", "--model", "base_residual"],
            "--view_levels is an option of binaural and unet",
        ),
    ):
        with pytest.raises(SystemExit):
            parse_options(wrong)
        assert message in capsys.readouterr().err


def test_levels_of_the_skips(capsys):
    for arguments, expected in (
        ([], [3]),
        (["--attention_levels", "2", "3", "4", "5"], [2, 3, 4]),
        (["--attention_levels"], [3]),
        (["--skip_levels", "4", "3"], [4, 3]),
        (["--model", "unet"], [1, 2, 3, 4]),
        (["--model", "unet", "--skip_levels", "3"], [3]),
        (["--model", "base_residual"], [1, 2, 3, 4]),
    ):
        assert parse_options(arguments).skip_levels == expected
    for wrong, message in (
        (["--skip_levels", "3", "5"], "--skip_levels must be different levels from 1 to 4, got (3, 5)"),
        (
            ["--skip_levels", "3", "--attention_levels", "2"],
            "--attention_levels: attention at (2,) has no effect",
        ),
        (["--skip_levels", "4"], "must include 3, the level that view transforms add to"),
        (
            ["--skip_levels", "3", "--model", "base_residual"],
            "--skip_levels is an option of binaural and unet",
        ),
    ):
        with pytest.raises(SystemExit):
            parse_options(wrong)
        assert message in capsys.readouterr().err


def test_symmetric_networks_have_even_channels(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--base_channels", "7"])
    assert "--base_channels must be even if symmetric, got 7" in capsys.readouterr().err
    assert parse_options(["--base_channels", "7", "--no-symmetric"]).base_channels == 7


def test_optimizers_and_schedulers_in_any_case():
    assert parse_options(["--optimizer", "AdamW", "--scheduler", "Step"]).optimizer == "adamw"
    assert parse_options(["--optimizer", "SGD", "--scheduler", "Step"]).scheduler == "step"
    assert parse_options(["--optimizer", "Adam", "--model", "UNet"]).optimizer == "adam"
    assert parse_options(["--features", "IPD", "magnitude"]).features == ["ipd", "magnitude"]


def test_defaults_of_a_model_are_those_of_its_class():
    options = vars(parse_options([]))
    for name, value in asdict(BinauralAttentionOptions()).items():
        assert options[name] == (list(value) if isinstance(value, tuple) else value)


def test_options_that_left_the_command_line_are_kept_by_older_runs(tmp_path):
    """Version 0.1 had --scope, --heads and others, which config.json of its runs names."""
    run = tmp_path / "run"
    run.mkdir()
    saved = vars(parse_options(["--experiment_name", "run"])) | {
        "scope": "plane",
        "heads": 2,
        "channels_last": True,
    }
    (run / "config.json").write_text(json.dumps(saved))
    options = parse_options(["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)])
    arguments = make_network(options).arguments
    assert (arguments["scope"], arguments["heads"]) == ("plane", 2)
    assert arguments["similarity"] == "shared"


def test_an_older_run_of_another_model_has_options_that_its_model_lacks(tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    older = {"attention_levels": [3, 5], "symmetric": True, "heads": 4, "scope": "time", "max_lag": None}
    saved = vars(parse_options(["--experiment_name", "run", "--model", "unet"])) | older
    (run / "config.json").write_text(json.dumps(saved))
    where = ["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)]
    arguments = make_network(parse_options([*where, "--model", "unet"])).arguments
    assert (arguments["skip_levels"], arguments["view_levels"]) == ((1, 2, 3, 4), ())


def test_a_resumed_run_keeps_the_defaults_of_options_that_its_config_lacks(tmp_path, capsys):
    run = tmp_path / "run"
    run.mkdir()
    saved = vars(parse_options(["--experiment_name", "run"]))
    del saved["ear_width"]
    (run / "config.json").write_text(json.dumps(saved))
    where = ["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)]
    assert parse_options([*where, "--ear_width", "1"]).ear_width == 1
    with pytest.raises(SystemExit):
        parse_options([*where, "--ear_width", "0.5"])
    assert "started with ear_width = 1.0, which cannot become 0.5" in capsys.readouterr().err


def test_resume_from_a_damaged_config(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{")
    with pytest.raises(SystemExit):
        parse_options(["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)])
    assert f"{tmp_path / 'run' / 'config.json'} is not the JSON" in capsys.readouterr().err
    (tmp_path / "run" / "config.json").write_text("[]")
    with pytest.raises(SystemExit):
        parse_options(["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)])
    assert "must be a JSON object of options, got list" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("dataset", "batvisionv3", "dataset must be of"),
        ("batch_size", "four", "batch_size must be like 16, got 'four'"),
        ("augment", 1, "augment must be like True, got 1"),
    ],
)
def test_resume_from_a_config_with_a_wrong_value(name, value, message, tmp_path, capsys):
    path = tmp_path / "run" / "config.json"
    path.parent.mkdir()
    path.write_text(json.dumps(vars(parse_options(["--experiment_name", "run"])) | {name: value}))
    with pytest.raises(SystemExit):
        parse_options(["--resume", "--experiment_name", "run", "--runs_dir", str(tmp_path)])
    assert f"{path}: {message}" in " ".join(capsys.readouterr().err.split())


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        parse_options(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name in (*DEFAULTS, *MODEL_OPTION_NAMES):
        assert re.search(rf"--{name}\b", text), name
    assert not re.search(r"\(default ?\)", text)
    assert "True" not in text
    for described in (
        "peak learning rate (default 0.001)",
        "order and augmentation (default 0)",
        "the metrics (default 0.0)",
        "(default simulated: 0, batvisionv1: ",
        "noise (default on)",
    ):
        assert described in text
