"""The folder of a run: its configuration, log, checkpoints and pictures."""

import io
import json
import time
from pathlib import Path
from typing import Any

import torch

from binaural.files import write_atomically, write_json
from binaural.training.options import Options

STATE = "training_state.pt"


class RunFolder:
    """`<runs_dir>/<name>/`, with everything that a run writes.

    Args:
        path: the folder; made if it is not there.
        wandb_config: log to Weights & Biases too, under this configuration; None does not.
    """

    def __init__(self, path: Path, wandb_config: dict[str, Any] | None = None) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._wandb: Any = None
        if wandb_config is not None:
            try:
                import wandb
            except ImportError as error:
                raise ValueError("--use_wandb needs the package wandb: pip install wandb") from error
            self._wandb = wandb.init(
                project="binaural-depth",
                name=path.name,
                id=path.name,
                resume="allow",
                config=wandb_config,
                dir=str(path),
            )

    @property
    def best(self) -> Path:
        return self.path / "best"

    @property
    def last(self) -> Path:
        return self.path / "last"

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        write_json(self.path / name, content)

    def log(self, record: dict[str, Any]) -> None:
        """Append a line to `log.jsonl`: one JSON object, its values plain numbers and strings."""
        with open(self.path / "log.jsonl", "a") as file:
            file.write(json.dumps({"time": round(time.time(), 3), **record}) + "\n")
        if self._wandb is not None:
            self._wandb.log(record)

    def read_log(self) -> list[dict[str, Any]]:
        path = self.path / "log.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def trim_log(self, steps: int) -> None:
        """Drop what was logged after `steps`: a killed run had gone further than its last checkpoint."""
        kept = [record for record in self.read_log() if record["step"] <= steps]
        write_atomically(
            self.path / "log.jsonl", "".join(json.dumps(record) + "\n" for record in kept).encode()
        )

    def save_state(self, state: dict[str, Any]) -> None:
        """Replace the training state whole: a run killed at any moment keeps the one before."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.last.mkdir(exist_ok=True)
        write_atomically(self.last / STATE, buffer.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """The training state, or None if the run was stopped before its first checkpoint."""
        path = self.last / STATE
        return torch.load(path, map_location="cpu", weights_only=True) if path.is_file() else None

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
