"""The folder of a run: its configuration, log, checkpoints and pictures."""

import io
import json
import pickle
import secrets
import time
from pathlib import Path
from typing import Any

import torch

from binaural.atomic_files import remove_unfinished, write_atomically, write_json
from binaural.models.pretrained import Pretrained
from binaural.training.options import Options

STATE = "training_state.pt"


class RunFolder:
    """`<runs_dir>/<name>/`, with everything that a run writes; nothing before `begin`.

    Args:
        path: the folder.
        writes: False for all but one of several processes: they read only.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._wandb: Any = None

    def begin(self, wandb_config: dict[str, Any] | None = None) -> None:
        """Make the folder if it is not there, and log to Weights & Biases too where its config is given.

        Raises:
            OSError: the folder cannot be made.
        """
        if not self.writes:
            return
        self.path.mkdir(parents=True, exist_ok=True)
        for folder in (self.path, self.best, self.last):
            remove_unfinished(folder)
        if wandb_config is None:
            return
        import wandb

        # An id of its own, kept for resuming: another run of the same name is not this one.
        id_file = self.path / "wandb_id"
        if not id_file.is_file():
            write_atomically(id_file, secrets.token_hex(4).encode())
        self._wandb = wandb.init(
            project="binaural-depth",
            name=self.path.name,
            id=id_file.read_text(),
            resume="allow",
            config=wandb_config,
            dir=str(self.path),
        )

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def last(self) -> Path:
        return self.path / "last"

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        if self.writes:
            write_json(self.path / name, content)

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to `log.jsonl`: one JSON object, its values plain numbers and strings."""
        if not self.writes:
            return
        with open(self.path / "log.jsonl", "a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")
        if self._wandb is not None:
            self._wandb.log(record)

    def read_log(self) -> list[dict[str, Any]]:
        """The records of `log.jsonl`; a line that a killed run left unfinished is not one."""
        path = self.path / "log.jsonl"
        if not path.is_file():
            return []
        whole = path.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def trim_log(self, steps: int) -> None:
        """Drop what was logged after `steps`: a killed run had gone further than its last checkpoint."""
        if not self.writes:
            return
        kept = [record for record in self.read_log() if record["step"] <= steps]
        write_atomically(
            self.path / "log.jsonl", "".join(json.dumps(record) + "\n" for record in kept).encode()
        )

    def save_network(self, folder: Path, network: Pretrained, extra: dict[str, Any]) -> None:
        """`network.save_pretrained` to `best` or `last`."""
        if self.writes:
            network.save_pretrained(folder, extra)

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the training state whole: a run killed at any moment keeps the one before."""
        if not self.writes:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.last.mkdir(exist_ok=True)
        write_atomically(self.last / STATE, buffer.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """The training state, or None if the run was stopped before its first checkpoint.

        Raises:
            ValueError: the file is damaged, or holds more than tensors and numbers.
        """
        path = self.last / STATE
        if not path.is_file():
            return None
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"{path}: not a readable training state ({error})") from error

    def close(self) -> None:
        if self._wandb is not None:
            self._wandb.finish()


def choose_run_folder(options: Options) -> Path:
    """Where the run goes: the given name, or the first free one of DATASET-MODEL, DATASET-MODEL-2, ...

    Raises:
        ValueError: a run of the given name is there already and is not to be resumed.
    """
    runs_dir = Path(options.runs_dir)
    if options.experiment_name is not None:
        path = runs_dir / options.experiment_name
        if (path / "config.json").exists() and not options.resume:
            raise ValueError(
                f"there is a run at {path} already: go on with --resume, or take another --experiment_name"
            )
        return path
    default_name = f"{options.dataset}-{options.model}"
    path, number = runs_dir / default_name, 2
    while path.exists():
        path, number = runs_dir / f"{default_name}-{number}", number + 1
    return path
