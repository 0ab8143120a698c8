"""Loading of samples in batches, in order, by worker processes."""

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


def ignore_signals(worker: int) -> None:
    """Ignore Ctrl-C and SIGTERM in a worker: the main process needs its workers until it stops."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
