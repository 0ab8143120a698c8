"""Batches in an order, and with random variations, that depend on seed and epoch alone.

So a run that was stopped in the middle of an epoch goes on as if it had not been, with any number of
loading processes.
"""

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from binaural.data import Echoes
from binaural.data.loading import ignore_signals

Key = tuple[int, int]  # epoch, index in the data set


class EpochBatches(Sampler[list[Key]]):
    """This process's share of the shuffled batches of each epoch; the last, incomplete one is left out.

    The batches themselves do not depend on how many processes share them.

    Args:
        size: samples in the data set.
        batch_size: samples in a batch, of all processes together.
        seed: with the epoch, it decides the order.
        rank, count: which of how many processes this one is.
    """

    def __init__(self, size: int, batch_size: int, seed: int, rank: int = 0, count: int = 1) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        share = batch_size // count
        self.share = slice(rank * share, (rank + 1) * share)
        self.epoch, self.start = 0, 0

    def go_to(self, epoch: int, batch: int = 0) -> None:
        """Iterate over `epoch` next, from its `batch` on."""
        self.epoch, self.start = epoch, batch

    def indices(self, batch: int) -> list[int]:
        """Which samples `batch` of the present epoch holds."""
        return self._order()[batch * self.batch_size : (batch + 1) * self.batch_size]

    def __len__(self) -> int:
        return self.size // self.batch_size

    def __iter__(self) -> Iterator[list[Key]]:
        order = self._order()
        for batch in range(self.start, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(self.epoch, index) for index in indices[self.share]]

    def _order(self) -> list[int]:
        generator = torch.Generator().manual_seed(_mix(self.seed, self.epoch))
        return torch.randperm(self.size, generator=generator).tolist()


def steps_per_epoch(size: int, batch_size: int, accumulate: int = 1) -> int:
    """Steps of an epoch of `size` samples; samples that do not fill another step are left out.

    Raises:
        ValueError: there are not enough samples for one step.
    """
    if batch_size > size:
        raise ValueError(
            f"batch_size must be at most {size}, the number of training samples, got {batch_size}"
        )
    batches = size // batch_size
    if accumulate > batches:
        raise ValueError(f"accumulate must be at most {batches}, the batches of an epoch, got {accumulate}")
    return batches // accumulate


class SeededItems(Dataset[tuple[Tensor, ...]]):
    """A data set whose random variation of an item is decided by seed, epoch and index."""

    def __init__(self, dataset: Echoes, seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitem__(self, key: Key) -> tuple[Tensor, ...]:
        epoch, index = key
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(_mix(self.seed, epoch, index))
            return self.dataset[index]


def training_loader(
    dataset: Echoes, batch_size: int, seed: int, num_workers: int, rank: int = 0, count: int = 1
) -> tuple[DataLoader[tuple[Tensor, ...]], EpochBatches]:
    """A loader of this process's share of shuffled batches, and the sampler that says where it is."""
    batches = EpochBatches(len(dataset), batch_size, seed, rank, count)
    loader = DataLoader(
        SeededItems(dataset, seed),
        batch_sampler=batches,
        num_workers=num_workers,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=num_workers > 0,
        worker_init_fn=ignore_signals,
    )
    return loader, batches


def _mix(*numbers: int) -> int:
    """One seed of several, such that neighbours differ in all bits (a 64-bit finaliser, splitmix64)."""
    mask, state = 2**64 - 1, 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & mask
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & mask
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & mask
        state ^= state >> 31
    return state >> 1  # torch wants a signed 64-bit number
