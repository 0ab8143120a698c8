"""The training runs of a comparison, in parallel; finished runs are kept and stopped ones resumed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from csv import DictReader, DictWriter
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path

import numpy as np

from benchmarks.comparison.compared_systems import SYSTEMS, TEACHER, System
from binaural.atomic_files import write_atomically
from binaural.training.options import CHANGEABLE, OLDER_DEFAULTS, Options, parse_options

ROOT = Path(__file__).resolve().parents[2]
_LINES = 15  # of the log that an error shows


@dataclass(frozen=True)
class Run:
    """One training of one system.

    Attributes:
        name: of the system, in `SYSTEMS`.
        seed: of the training.
        runs_dir: folder of all runs of the comparison.
        dataset_dir: folder of the recordings, shuffled ones for a control.
        shared: arguments of `train.py` for all systems.
    """

    name: str
    seed: int
    runs_dir: Path
    dataset_dir: Path
    shared: tuple[str, ...]

    @property
    def system(self) -> System:
        return SYSTEMS[self.name]

    @property
    def folder(self) -> Path:
        slug = "".join(c if c.isalnum() or c in "_+" else "-" for c in self.name).replace("--", "-")
        return self.runs_dir / f"{slug}-seed{self.seed}"

    @property
    def is_done(self) -> bool:
        return (self.folder / "metrics.json").is_file()

    @property
    def teacher(self) -> "Run":
        """The run of the teacher with the same seed."""
        return Run(TEACHER, self.seed, self.runs_dir, self.dataset_dir, self.shared)

    @property
    def arguments(self) -> list[str]:
        taught = ["--teacher", str(self.teacher.folder / "best")] if self.system.taught else []
        return [
            *self.shared, *self.system.arguments, *taught, "--seed", str(self.seed),
            "--dataset_dir", str(self.dataset_dir), "--runs_dir", str(self.runs_dir),
            "--experiment_name", self.folder.name,
            "--cache_dir", str(self.runs_dir / "cache" / self.system.samples),
        ]  # fmt: skip

    @cached_property
    def options(self) -> Options:
        return parse_options(self.arguments)

    def check(self) -> None:
        """Refuse a folder with a run of another comparison.

        Raises:
            ValueError: a run with other options; the text names them.
        """
        config = self.folder / "config.json"
        if not config.is_file():
            return
        there = {**OLDER_DEFAULTS, **json.loads(config.read_text())}
        for name, value in vars(self.options).items():
            # A resumed run may change its epochs; runs that are compared must have the same number.
            if (name not in CHANGEABLE or name == "nb_epochs") and there.get(name, value) != value:
                raise ValueError(
                    f"{self.folder} was made with {name} = {there[name]!r}, expected {value!r}: "
                    "choose another --runs_dir, or delete it"
                )


def train(run: Run, threads: int) -> None:
    """Train a run to its end, on so many threads; its output goes to FOLDER.txt.

    Raises:
        RuntimeError: it failed or was stopped; the text shows the end of its output.
    """
    run.runs_dir.mkdir(parents=True, exist_ok=True)
    output = run.folder.with_suffix(".txt")
    resume = ["--resume"] if (run.folder / "config.json").is_file() else []
    with open(output, "a") as file:
        process = subprocess.run(
            [sys.executable, "train.py", *run.arguments, *resume],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if process.returncode or not run.is_done:
        end = output.read_text().replace("\r", "\n").splitlines()[-_LINES:]
        what = f"failed with status {process.returncode}" if process.returncode else "was stopped"
        raise RuntimeError("\n".join([f"{run.folder.name} {what}; the end of {output}:", *end]))


def train_all(runs: Iterable[Run], jobs: int) -> None:
    """Train the unfinished runs, `jobs` at a time, on as many threads together as there are cores.

    Teachers are trained before their students. Calling it again resumes stopped runs.

    Raises:
        ValueError: a folder holds a run of another comparison.
        RuntimeError: a run failed or was stopped; those beside it have come to their end then.
    """
    runs = list(runs)
    for run in runs:
        run.check()
    missing = [run for run in runs if not run.is_done]
    if len(missing) < len(runs):
        print(f"{len(runs) - len(missing)} of {len(runs)} runs are done already")
    threads = max(1, len(os.sched_getaffinity(0)) // jobs)

    def work(run: Run) -> None:
        print(f"training {run.folder.name}", flush=True)
        train(run, threads)

    for taught in (False, True):
        with ThreadPoolExecutor(jobs) as pool:
            try:
                for _ in pool.map(work, [run for run in missing if run.system.taught == taught]):
                    pass
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def shuffle_labels(dataset_dir: Path, shuffled: Path) -> Path:
    """A data set whose training recordings have the depth and picture of other rooms; returns `shuffled`.

    Validation and test are as they were. Only tables are written; the files themselves are linked to.

    Args:
        dataset_dir: in the layout of BatVision V2.
        shuffled: replaced if it is there.

    Raises:
        FileNotFoundError: there is no such data set.
    """
    tables = sorted(dataset_dir.glob("*/train.csv"))
    if not tables:
        raise FileNotFoundError(f"{dataset_dir}: no <location>/train.csv, expected BatVision V2's layout")
    shutil.rmtree(shuffled, ignore_errors=True)
    for table in tables:
        place = shuffled / table.parent.name
        place.mkdir(parents=True)
        for entry in table.parent.iterdir():
            if entry.is_dir():
                (place / entry.name).symlink_to(entry.resolve())
            elif entry.name != table.name:
                shutil.copy(entry, place / entry.name)
        write_atomically(place / table.name, _shuffle_table(table.read_text()).encode())
    for entry in dataset_dir.iterdir():
        if entry.is_file():  # the simulation's own description
            shutil.copy(entry, shuffled / entry.name)
    return shuffled


def _shuffle_table(text: str) -> str:
    """Every row with the depth and picture of another, the same on every call."""
    rows = list(DictReader(StringIO(text)))
    order = np.random.default_rng(0).permutation(len(rows))
    seen = [name for name in rows[0] if name.startswith(("depth", "camera"))]
    # A cyclic shift of a random order: no row keeps its own label.
    moved = dict(zip(order, np.roll(order, 1), strict=True))
    shuffled = [row | {name: rows[moved[i]][name] for name in seen} for i, row in enumerate(rows)]
    out = StringIO(newline="")
    writer = DictWriter(out, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(shuffled)
    return out.getvalue()
