"""Option types, and the options that select data, shared by the commands."""

import argparse
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from binaural.data import DATASETS
from binaural.data.echo_dataset import SPLITS

SIMULATED_DIR = "data/simulated"
"""Default folder of the rooms that `train.py` simulates."""


def positive_int(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return int(text)


def natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, got {text!r}")
    return int(text)


def positive(text: str) -> float:
    if not (number := _number(text)) > 0 or math.isinf(number):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def not_negative(text: str) -> float:
    if not (number := _number(text)) >= 0 or math.isinf(number):
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


@contextmanager
def errors_in_one_line(command: str, stopped: str = "stopped") -> Iterator[None]:
    """Exit with one line for bad input, which raises ValueError or OSError inside, and for Ctrl-C."""
    try:
        yield
    except (ValueError, OSError) as error:
        sys.exit(f"{command}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{command}: {stopped}")


def add_data_options(parser: argparse.ArgumentParser) -> argparse._ArgumentGroup:
    """Add `--dataset`, `--dataset_dir`, `--split` and `--locations`; returns their group."""
    data = parser.add_argument_group("data")
    data.add_argument("--dataset", choices=tuple(DATASETS), help="default: the training data set")
    data.add_argument(
        "--dataset_dir", help=f"folder of the data set (default for simulated: {SIMULATED_DIR})"
    )
    data.add_argument("--split", choices=SPLITS, default="test", help="default: %(default)s")
    data.add_argument("--locations", nargs="+", metavar="NAME", help="batvisionv2: only these locations")
    return data


def choose_data(options: argparse.Namespace, trained_on: str) -> tuple[str, str]:
    """Data set and folder: those of the options, by default those that the network was trained on.

    Raises:
        ValueError: there is no default for the folder.
        FileNotFoundError: there is no such folder.
    """
    dataset = options.dataset or trained_on
    folder = options.dataset_dir or (SIMULATED_DIR if dataset == "simulated" else None)
    if folder is None:
        raise ValueError(f"{dataset} needs --dataset_dir, the folder of the data set")
    if not Path(folder).is_dir():
        raise FileNotFoundError(f"--dataset_dir: there is no folder {folder}")
    return dataset, folder
