"""Activation checkpointing: blocks keep only their input and recompute activations in the backward pass."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from binaural.models.blocks import DoubleConv, Fusion


def checkpoint_activations(network: nn.Module) -> None:
    """Recompute the activations of each `DoubleConv` and `Fusion` in the backward pass.

    The results have the same bits; running statistics of batch norms are updated once per batch.

    Raises:
        ValueError: the network has no such blocks.
    """
    blocks = [module for module in network.modules() if isinstance(module, DoubleConv | Fusion)]
    if not blocks:
        raise ValueError(f"--checkpoint_activations: {type(network).__name__} has no blocks to checkpoint")
    for block in blocks:
        name = "with_pooled" if isinstance(block, DoubleConv) else "forward"
        setattr(block, name, partial(_checkpointed, block, getattr(block, name)))


def _checkpointed(block: nn.Module, compute: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    if not block.training:
        return compute(*inputs, **options)
    return checkpoint(
        compute,
        *inputs,
        use_reentrant=False,
        preserve_rng_state=False,
        context_fn=partial(_contexts, block),
        **options,
    )


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """Context managers for the first computation and for the recomputation."""
    return nullcontext(), _statistics_kept(block)


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Keep the running statistics of batch norms unchanged during the recomputation."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    norms = [norm for norm in norms if norm.num_batches_tracked is not None]
    before = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]  # type: ignore[union-attr]
    for norm in norms:
        norm.momentum = 0.0  # running = 1 · running + 0 · new
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before, strict=True):
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(batches)  # type: ignore[union-attr]
