import pickle

import pytest
import torch

from binaural.training.options import parse_options
from binaural.training.run_folder import STATE, RunFolder, choose_run_folder


def test_log_is_trimmed_to_the_checkpoint(tmp_path):
    run = RunFolder(tmp_path / "run")
    for step in range(1, 6):
        run.log({"kind": "train", "step": step})
    run.trim_log(3)
    assert [record["step"] for record in run.read_log()] == [1, 2, 3]


def test_state_survives(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert run.load_state() is None
    run.save_state({"epoch": 2, "network": {"weight": torch.ones(3)}, "best": 0.5})
    state = run.load_state()
    assert (state["epoch"], state["best"]) == (2, 0.5)
    assert torch.equal(state["network"]["weight"], torch.ones(3))


class Malice:
    def __reduce__(self):
        return (print, ("executed",))


def test_loading_a_state_never_executes_code(tmp_path, capsys):
    run = RunFolder(tmp_path / "run")
    run.last.mkdir()
    torch.save({"epoch": Malice()}, run.last / STATE)
    with pytest.raises(pickle.UnpicklingError):
        run.load_state()
    assert "executed" not in capsys.readouterr().out


def test_names_of_runs(tmp_path):
    def choose(*arguments):
        return choose_run_folder(parse_options(["--runs_dir", str(tmp_path), *arguments]))

    assert choose().name == "simulated-binaural"
    (tmp_path / "simulated-binaural").mkdir()
    assert choose().name == "simulated-binaural-2"
    assert choose("--experiment_name", "mine") == tmp_path / "mine"
    RunFolder(tmp_path / "mine").write_json("config.json", {})
    with pytest.raises(ValueError, match="there is a run at .*mine already"):
        choose("--experiment_name", "mine")
