import math

import pytest
import torch

from binaural.training.step_losses import StepLosses


def test_means_since_the_last_look():
    losses = StepLosses(("recon", "edge", "smooth"), torch.device("cpu"), 3)
    for value in (1.0, 2.0):
        losses.add(torch.tensor(value), torch.tensor([value, 0.0, 10 * value]))
    means, bad = losses.take()
    assert means == {"loss": 1.5, "recon": 1.5, "edge": 0.0, "smooth": 15.0}
    assert bad is None
    losses.add(torch.tensor(7.0), torch.zeros(3))
    assert losses.take()[0]["loss"] == 7.0
    assert math.isnan(losses.take()[0]["loss"])


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_says_how_long_ago_the_first_bad_loss_was(bad):
    losses = StepLosses(("a", "b", "c"), torch.device("cpu"), 4)
    for value in (1.0, bad, 1.0, bad):
        losses.add(torch.tensor(value), torch.zeros(3))
    assert losses.take()[1] == 3
