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
from binaural.folder_lock import FolderInUse, FolderLock
from binaural.models.pretrained import Pretrained
from binaural.training.options import Options


class RunFolder:
    """`<runs_dir>/<name>/` and the files that a run writes there, from `begin` on.

    Args:
        path: the folder.
        writes: False for all ranks but the first, which only read.
    """

    def __init__(self, path: Path, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._wandb: Any = None

    def begin(self, wandb_config: dict[str, Any] | None = None) -> None:
        """Make the folder if needed, and start logging to Weights & Biases if its config is given.

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

        # The id is kept for resuming; a new run of the same name gets another one.
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

    @property
    def state_file(self) -> Path:
        return self.last / "training_state.pt"

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
        """The records of `log.jsonl`; unfinished and damaged lines are skipped, since it is only a log."""
        path = self.path / "log.jsonl"
        if not path.is_file():
            return []
        whole = path.read_bytes().rpartition(b"\n")[0]
        return [record for line in whole.splitlines() if (record := _parse_record(line)) is not None]

    def trim_log(self, steps: int) -> None:
        """Remove records after step `steps`, which a killed run logged after its last checkpoint."""
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
        """Replace the training state atomically: a run that is killed keeps the previous one."""
        if not self.writes:
            return
        buffer = io.BytesIO()
        torch.save(state, buffer)
        self.last.mkdir(exist_ok=True)
        write_atomically(self.state_file, buffer.getvalue())

    def load_state(self) -> dict[str, Any] | None:
        """The training state, or None if the run was stopped before its first checkpoint.

        Raises:
            ValueError: the file is damaged, or holds more than tensors and numbers.
        """
        path = self.state_file
        if not path.is_file():
            return None
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
                pickle.UnpicklingError, OSError) as error:  # fmt: skip
            raise ValueError(f"{path}: not a readable training state ({_first_line(error)})") from error
        if not isinstance(state, dict):
            raise ValueError(f"{path}: expected a training state, got a {type(state).__name__}")
        return state

    def close(self) -> None:
        if self._wandb is not None:
            self._wandb.finish()


def _parse_record(line: bytes) -> dict[str, Any] | None:
    """A record of the log, or None if the line is damaged."""
    try:
        record = json.loads(line)
        return record if isinstance(record["step"], int) and isinstance(record["kind"], str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def claim_run_folder(options: Options) -> "ClaimedFolder":
    """Make and lock the folder of a run, before any other work.

    Without a given name it is the first free one of DATASET-MODEL, DATASET-MODEL-2, ...

    Raises:
        ValueError: the given name belongs to a run that is not to be resumed, or that is in progress.
        OSError: the folder cannot be made or written to.
    """
    runs_dir = Path(options.runs_dir)
    if options.experiment_name is None:
        default_name = f"{options.dataset}-{options.model}"
        path, number = runs_dir / default_name, 2
        while True:
            try:
                return ClaimedFolder(path, new=True)
            except FileExistsError:
                if not runs_dir.is_dir():
                    raise
            path, number = runs_dir / f"{default_name}-{number}", number + 1
    path = runs_dir / options.experiment_name
    taken = f"there is a run at {path} already: add --resume, or choose another --experiment_name"
    if (path / "config.json").exists() and not options.resume:
        raise ValueError(taken)
    try:
        claimed = ClaimedFolder(path)
    except FolderInUse as error:
        raise ValueError(f"{error}: wait for it, or choose another --experiment_name") from error
    if (path / "config.json").exists() and not options.resume:  # written since by a run that has ended
        claimed.release()
        raise ValueError(taken)
    return claimed


class ClaimedFolder:
    """A folder that exists and is locked for this process.

    Args:
        path: the folder; its parents are made too.
        new: fail if the folder exists.

    Raises:
        FileExistsError: it exists and must be new, or is not a folder.
        FolderInUse: another process has it.
        OSError: it cannot be made or written to.
    """

    def __init__(self, path: Path, new: bool = False) -> None:
        self.path = path
        self._made = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=not new)
        self._lock = FolderLock(path)

    def release(self) -> None:
        """Release the lock; folders that were made and are still empty are removed."""
        self._lock.release()
        for folder in self._made:
            try:
                folder.rmdir()
            except OSError:
                break
