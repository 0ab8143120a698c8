"""What only a GPU can show of a training step."""

import pytest
import torch
from one_step import make_trainer

from binaural.features import channel_names
from binaural.training.processes import Processes

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--features", "magnitude", "ipd"],
        ["--no-symmetric"],
        ["--matching", "group_correlation"],
        ["--model", "unet"],
        ["--model", "base_residual"],
    ],
    ids=" ".join,
)
def test_the_host_never_waits(arguments):
    with Processes(torch.device("cuda")) as processes:
        trainer = make_trainer(processes, *arguments)
        trainer.network.train()
        channels = len(channel_names(trainer.options.features))
        heard = torch.randn(4, channels, 32, 32, device="cuda")
        depth = 10 * torch.rand(4, 1, 32, 32, device="cuda")

        def step():
            trainer._add_gradient(heard, depth)
            trainer._update_weights()

        step()  # compiles and tunes
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        assert all(torch.isfinite(p).all() for p in trainer.network.parameters())
