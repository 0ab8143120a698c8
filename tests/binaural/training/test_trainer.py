"""A training step: never recompiled, never waiting for the device, in less memory if asked."""

from multiprocessing import active_children

import pytest
import torch
from one_step import make_trainer
from torch.utils._python_dispatch import TorchDispatchMode

from binaural.training.activations import checkpoint_activations
from binaural.training.interruption import Interruption
from binaural.training.processes import Processes

CPU = torch.device("cpu")


def test_compiled_once_without_a_graph_break(monkeypatch):
    """Through epochs of the curriculum, and evaluation between them."""
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph

    compile_network = torch.compile
    monkeypatch.setattr(
        torch, "compile", lambda network, **how: compile_network(network, backend=count, **how)
    )
    torch._dynamo.reset()
    trainer = make_trainer(Processes(CPU), "--use_adaptive_loss", "--nb_epochs", "4", compiled=True)
    weights = []
    for epoch in range(4):
        with torch._dynamo.config.patch(error_on_recompile=epoch > 0), Interruption() as interruption:
            trainer.train_epoch(interruption)
        weights.append(trainer.loss.weights.tolist())
        with torch.no_grad():
            trainer.network.eval()(torch.zeros(3, 2, 32, 32))
        trainer.finish_epoch(1.0)
    assert weights[0] != weights[1]
    assert len(graphs) == 1
    assert not torch._dynamo.utils.counters["graph_break"]


class Waits(TorchDispatchMode):
    """Counts what would wait for a GPU."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function in (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.masked_select.default,
            torch.ops.aten.equal.default,
        ):
            self.found.append(function)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("model", ["binaural", "unet", "base_residual"])
def test_a_step_never_waits_for_the_device(model):
    trainer = make_trainer(Processes(CPU), "--model", model, "--clip_gradient", "1")
    trainer.network.train()
    heard, *seen = next(iter(trainer.batches))
    with Waits() as waits:
        trainer._add_gradient(heard, *seen)
        trainer._update_weights()
    assert waits.found == []
    with Waits() as waits:
        torch.ones(1).item()
    assert len(waits.found) == 1


def test_recomputed_activations_change_nothing_but_memory():
    def step(checkpointed):
        trainer = make_trainer(Processes(CPU))
        if checkpointed:
            checkpoint_activations(trainer.network)
        trainer.network.train()
        heard, *seen = next(iter(trainer.batches))
        kept = {}

        def keep(tensor):
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss, _ = trainer.loss(trainer.forward(heard), *seen)
        loss.backward()
        gradients = {name: p.grad for name, p in trainer.network.named_parameters()}
        return gradients, trainer.network.state_dict(), sum(kept.values())

    gradients, state, kept = step(False)
    again, state_again, kept_again = step(True)
    for name, gradient in gradients.items():
        assert torch.equal(again[name], gradient), name
    for name, value in state.items():
        assert torch.equal(state_again[name], value), name
    assert kept_again < 0.7 * kept


def test_networks_without_blocks_are_not_checkpointed():
    with pytest.raises(ValueError, match="--checkpoint_activations: Linear has no blocks"):
        checkpoint_activations(torch.nn.Linear(2, 2))


def test_closed_it_leaves_no_loading_process():
    before = set(active_children())
    trainer = make_trainer(Processes(CPU), "--num_workers", "2")
    next(iter(trainer.batches))
    workers = set(active_children()) - before
    assert len(workers) == 2
    trainer.close()
    assert not any(worker.is_alive() for worker in workers)
