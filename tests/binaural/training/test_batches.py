import pytest
import torch
from torch.utils.data import Dataset

from binaural.training.batches import EpochBatches, SeededItems, steps_per_epoch, training_loader


class RandomItems(Dataset):
    """Each item is a pair of random numbers, as an augmented sample would be."""

    def __len__(self):
        return 10

    def __getitem__(self, index):
        return torch.rand(2) + index, torch.rand(1)


def test_each_epoch_has_an_order_of_its_own_that_the_seed_decides():
    def order(seed, epoch):
        batches = EpochBatches(10, 3, seed)
        batches.go_to(epoch)
        return [index for batch in batches for _, index in batch]

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(0, 1)
    assert order(0, 0) != order(1, 0)
    assert len(set(order(0, 0))) == 9  # three whole batches of ten samples


def test_going_on_in_the_middle_of_an_epoch():
    batches = EpochBatches(10, 3, seed=0)
    batches.go_to(5)
    whole = list(batches)
    batches.go_to(5, batch=2)
    assert list(batches) == whole[2:]
    assert batches.indices(2) == [index for _, index in whole[2]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_random_variation_depends_on_seed_epoch_and_index_alone(num_workers):
    def items(workers, epoch, start=0):
        loader, batches = training_loader(RandomItems(), 2, seed=3, num_workers=workers)
        batches.go_to(epoch, start)
        return [torch.cat([a, b], dim=1) for a, b in loader]

    torch.rand(1)  # the global random state is not what decides
    whole = torch.stack(items(num_workers, epoch=1))
    torch.testing.assert_close(whole, torch.stack(items(0, epoch=1)), rtol=0, atol=0)
    torch.testing.assert_close(whole[3:], torch.stack(items(0, epoch=1, start=3)), rtol=0, atol=0)
    assert not torch.equal(whole, torch.stack(items(0, epoch=2)))


def test_drawing_an_item_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    SeededItems(RandomItems(), seed=0)[0, 1]
    assert torch.equal(torch.get_rng_state(), state)


def test_steps_of_an_epoch():
    assert steps_per_epoch(10, 3, 3) == 1
    assert steps_per_epoch(10, 2, 2) == 2
    with pytest.raises(
        ValueError, match="batch_size must be at most 10, the number of training samples, got 11"
    ):
        steps_per_epoch(10, 11)
    with pytest.raises(ValueError, match="accumulate must be at most 3, the batches of an epoch, got 4"):
        steps_per_epoch(10, 3, 4)
