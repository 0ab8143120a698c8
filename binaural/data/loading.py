"""Loading of samples in batches, in order, by worker processes."""

import atexit
import multiprocessing
import signal
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset


def evaluation_loader(
    dataset: Dataset[Any], batch_size: int, num_workers: int
) -> DataLoader[tuple[Tensor, ...]]:
    """A loader of all samples, in order."""
    return DataLoader(
        dataset,
        batch_size=batch_size,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=ignore_signals,
    )


def _end_workers() -> None:
    """End the workers that are left when Python exits.

    They ignore SIGTERM, with which multiprocessing would ask them to end before it waits for them. This
    function runs first, since exit functions run in reverse order of their registration.
    """
    for child in multiprocessing.active_children():
        if child.daemon:  # as workers are; other processes of a program end by themselves
            child.kill()


atexit.register(_end_workers)


def ignore_signals(worker: int) -> None:
    """Ignore Ctrl-C, SIGTERM and SIGHUP in a worker: the main process needs its workers until it stops."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
