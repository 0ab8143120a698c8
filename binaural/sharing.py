"""Two names for one part of a network."""

from torch import nn


def share(module: nn.Module, name: str, other: str) -> None:
    """Make `module.name` the same part as `module.other`, which alone is registered and saved."""
    delattr(module, name)
    object.__setattr__(module, name, getattr(module, other))
