import os
import subprocess
import sys

import pytest
import torch

from binaural.training.options import parse_options
from binaural.training.run_folder import RunFolder, claim_run_folder


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
    path = run.state_file
    whole = path.read_bytes()
    for content in (whole[:500], b"", bytes(100), whole[:300] + bytes(200) + whole[500:]):
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
    torch.save({"epoch": Malice()}, run.state_file)
    with pytest.raises(ValueError, match="not a readable training state"):
        run.load_state()
    assert "executed" not in capsys.readouterr().out


def claim(runs_dir, *arguments):
    return claim_run_folder(parse_options(["--runs_dir", str(runs_dir), *arguments]))


def test_runs_without_a_name_take_folders_of_their_own(tmp_path):
    """Each while the others have written nothing yet."""
    claims = [claim(tmp_path / "runs") for _ in range(3)]
    names = [claimed.path.name for claimed in claims]
    assert names == ["simulated-binaural", "simulated-binaural-2", "simulated-binaural-3"]
    for claimed in reversed(claims):
        claimed.release()
    assert not (tmp_path / "runs").exists()


IN_ANOTHER_PROCESS = """
import sys
from binaural.training.options import parse_options
from binaural.training.run_folder import claim_run_folder
try:
    claim_run_folder(parse_options(["--runs_dir", sys.argv[1], "--experiment_name", "mine"]))
    print("claimed")
except ValueError as error:
    print(error)
"""


def test_a_run_in_progress_is_refused_to_another_process(tmp_path):
    def another():
        command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    claimed = claim(tmp_path, "--experiment_name", "mine")
    assert another() == (
        f"{tmp_path / 'mine'} is in use by another process: wait for it, or choose another --experiment_name"
    )
    claimed.release()
    assert another() == "claimed"
    # That process ended without releasing its lock, as one does that is killed.
    claim(tmp_path, "--experiment_name", "mine").release()


def test_a_forked_child_does_not_keep_the_lock(tmp_path):
    claimed = claim(tmp_path, "--experiment_name", "mine")
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(write)
        os.read(read, 1)  # until the parent has closed its end
        os._exit(0)
    claimed.release()
    claim(tmp_path, "--experiment_name", "mine").release()
    os.close(write)
    os.waitpid(child, 0)


def test_a_runs_dir_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "runs").write_text("a file")
    for arguments in ((), ("--experiment_name", "mine")):
        with pytest.raises(OSError, match="runs"):
            claim(tmp_path / "runs", *arguments)
    (tmp_path / "link").symlink_to(tmp_path / "nowhere" / "else")
    with pytest.raises(OSError, match="link"):
        claim(tmp_path / "link")


def test_damaged_lines_of_the_log_are_skipped(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.begin()
    run.log({"kind": "train", "step": 1})
    with open(run.path / "log.jsonl", "ab") as file:
        file.write(b"null\n" + b"[" * 100_000 + b'\n{"kind": "train"}\n{"tim\xe5": 1}\n')
    run.log({"kind": "train", "step": 2})
    assert [record["step"] for record in run.read_log()] == [1, 2]


def test_a_given_name_is_that_of_a_new_run(tmp_path):
    run = RunFolder(tmp_path / "mine")
    run.begin()
    run.write_json("config.json", {})
    with pytest.raises(ValueError, match="there is a run at .*mine already"):
        claim(tmp_path, "--experiment_name", "mine")
