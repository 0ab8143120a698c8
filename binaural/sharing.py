"""Ears that share their weights: two names for one module, and one batch of both."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def share(module: nn.Module, name: str, other: str) -> None:
    """Make the module `module.name` the same as `module.other`, which alone is registered and saved.

    Not for parameters: PyTorch replaces those, by `load_state_dict(assign=True)` or `functional_call`, where
    they are registered.
    """
    assert isinstance(getattr(module, other), nn.Module)
    delattr(module, name)
    object.__setattr__(module, name, getattr(module, other))


def as_one_batch(ears: Sequence[Tensor]) -> Tensor:
    """Maps of left and right ear [B, ...], or both in one batch → [2 B, ...], the left ear's first."""
    return ears[0] if len(ears) == 1 else torch.cat(list(ears))


def each_ear(ears: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maps of left and right ear [B, ...], or both in one batch [2 B, ...] → left and right."""
    left, right = ears[0].chunk(2) if len(ears) == 1 else ears
    return left, right
