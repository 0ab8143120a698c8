import pytest
import torch

from binaural.training.options import parse_options
from binaural.training.run_folder import STATE, RunFolder, choose_run_folder


def test_log_is_trimmed_to_the_checkpoint(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin()
    for step in range(1, 6):
        run.log({"kind": "train", "step": step})
    run.trim_log(3)
    assert [record["step"] for record in run.read_log()] == [1, 2, 3]


def test_a_killed_runs_leftovers_do_not_hinder(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert not run.path.exists()
    run.begin()
    run.log({"kind": "train", "step": 1})
    with open(run.path / "log.jsonl", "a") as file:
        file.write('{"kind": "tr')
    assert [record["step"] for record in run.read_log()] == [1]
    run.last.mkdir()
    (run.last / ".model.safetensors.123.tmp").write_bytes(b"half")
    run.begin()
    assert not list(run.last.iterdir())


def test_a_damaged_state_is_named(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin()
    run.save_state({"network": {"weight": torch.ones(300)}})
    path = run.last / STATE
    for content in (path.read_bytes()[:500], b""):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"training_state\.pt: not a readable training state"):
            run.load_state()


def test_state_survives(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin()
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
    run.begin()
    run.last.mkdir()
    torch.save({"epoch": Malice()}, run.last / STATE)
    with pytest.raises(ValueError, match="not a readable training state"):
        run.load_state()
    assert "executed" not in capsys.readouterr().out


def test_names_of_runs(tmp_path):
    def choose(*arguments):
        return choose_run_folder(parse_options(["--runs_dir", str(tmp_path), *arguments]))

    assert choose().name == "simulated-binaural"
    (tmp_path / "simulated-binaural").mkdir()
    assert choose().name == "simulated-binaural-2"
    assert choose("--experiment_name", "mine") == tmp_path / "mine"
    run = RunFolder(tmp_path / "mine")
    run.begin()
    run.write_json("config.json", {})
    with pytest.raises(ValueError, match="there is a run at .*mine already"):
        choose("--experiment_name", "mine")
