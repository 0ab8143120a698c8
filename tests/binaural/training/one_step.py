"""One training step in as many processes as there are: `torchrun ... one_step.py OUT NAME...` of `KINDS`."""

import sys
from pathlib import Path

import torch
from torch.utils.data import Dataset

from binaural.training.build import make_loss, make_network
from binaural.training.options import parse_options
from binaural.training.processes import Processes
from binaural.training.run_folder import RunFolder
from binaural.training.sync_batchnorm import synchronise_batchnorm
from binaural.training.trainer import Trainer


class Samples(Dataset):
    """Eight samples; each has measured another part of its pixels, one none at all."""

    recordings = ()

    def __len__(self):
        return 8

    def __getitem__(self, index):
        generator = torch.Generator().manual_seed(index)
        depth = 10 * torch.rand(1, 32, 32, generator=generator)
        return torch.randn(2, 32, 32, generator=generator), depth * (depth > 1.4 * index)


def make_trainer(processes, *arguments, samples=None, compiled=False, synchronised=True):
    """A trainer of a small network, on a data set of random numbers, that writes nothing."""
    options = parse_options(
        ["--base_channels", "4", "--image_size", "32", "--batch_size", "4", "--num_workers", "0",
         "--simulated_rooms", "8", "--clip_gradient", "1e9", *arguments]
    )  # fmt: skip
    torch.manual_seed(0)
    network = make_network(options).to(processes.device).to(memory_format=torch.channels_last)
    for name, parameter in network.named_parameters():
        if "gain" in name:  # it starts at 0, and nothing behind it would have a gradient
            torch.nn.init.constant_(parameter, 0.5)
    if processes.count > 1 and synchronised:
        synchronise_batchnorm(network)
    run = RunFolder(Path("nowhere"), writes=False)
    loss = make_loss(options, network)
    return Trainer(options, network, loss, samples or Samples(), run, processes, torch.float32, compiled)


def step(processes, name):
    """Gradients, running statistics and losses of the first batch, of one of `KINDS`."""
    arguments, how = KINDS[name]
    trainer = make_trainer(processes, *arguments, **how)
    inner = trainer.forward.module if processes.count > 1 else trainer.forward
    assert isinstance(inner, torch._dynamo.OptimizedModule) == how.get("compiled", False)
    trainer.network.train()
    heard, *seen = next(iter(trainer.batches))
    trainer._add_gradient(heard, *seen)
    result = {f"gradient of {name}": p.grad for name, p in trainer.network.named_parameters()}
    result |= {name: buffer.float() for name, buffer in trainer.network.named_buffers()}
    return result | {"losses": torch.tensor(list(trainer.losses.take()[0].values()))}


# What is stepped, by its name. What is compiled has batch norms of each process's own, and so has the eager
# one that it is compared with.
KINDS = {
    "binaural": ([], {}),
    "own weights": (["--no-symmetric"], {}),
    "base_residual": (["--model", "base_residual"], {}),
    "eager": ([], {"synchronised": False}),
    "compiled": ([], {"synchronised": False, "compiled": True}),
}

if __name__ == "__main__":
    torch.set_num_threads(1)
    with Processes(torch.device("cpu")) as processes:
        results = {name: step(processes, name) for name in sys.argv[2:]}
        if processes.main:
            torch.save(results, sys.argv[1])
        processes.wait()
