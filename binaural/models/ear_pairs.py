"""Pairs of feature maps, one for each ear: as two tensors or as one batch; and modules with tied weights."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def tie_weights(module: nn.Module, name: str, other: str) -> None:
    """Make `module.name` the same module as `module.other`; only `other` is registered and saved.

    Not for parameters: PyTorch replaces those, by `load_state_dict(assign=True)` or `functional_call`, where
    they are registered.
    """
    assert isinstance(getattr(module, other), nn.Module)
    delattr(module, name)
    object.__setattr__(module, name, getattr(module, other))


def split_ears(both: Tensor) -> tuple[Tensor, Tensor]:
    """Both ears' maps in one batch [2 B, ...] → left and right [B, ...]."""
    # Not by chunk, whose sizes torch.export cannot derive from a symbolic batch.
    size = both.shape[0] // 2
    left, right = both.split([size, size])
    return left, right


def exchange_ears(both: Tensor) -> Tensor:
    """Both ears' maps in one batch [2 B, ...] → the same, with the right ear's maps first."""
    return torch.cat(split_ears(both)[::-1])


def as_one_batch(ears: Sequence[Tensor]) -> Tensor:
    """Maps of left and right ear [B, ...], or both in one batch → [2 B, ...], the left ear's first.

    Raises:
        ValueError: more or fewer maps, or one of an odd batch.
    """
    _check(ears)
    return ears[0] if len(ears) == 1 else torch.cat(list(ears))


def each_ear(ears: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Maps of left and right ear [B, ...], or both in one batch [2 B, ...] → left and right.

    Raises:
        ValueError: more or fewer maps, or one of an odd batch.
    """
    _check(ears)
    if len(ears) == 1:
        return split_ears(ears[0])
    left, right = ears
    return left, right


def _check(ears: Sequence[Tensor]) -> None:
    if not (len(ears) == 2 or (len(ears) == 1 and ears[0].shape[0] % 2 == 0)):
        shapes = ", ".join(str([*ear.shape]) for ear in ears) or "nothing"
        raise ValueError(f"expected maps of left and right ear, or one batch of both, got {shapes}")
