"""Two names for one part of a network."""

from torch import nn


def share(module: nn.Module, name: str, other: str) -> None:
    """Make the module `module.name` the same as `module.other`, which alone is registered and saved.

    Not for parameters: PyTorch replaces those, by `load_state_dict(assign=True)` or `functional_call`, where
    they are registered.
    """
    assert isinstance(getattr(module, other), nn.Module)
    delattr(module, name)
    object.__setattr__(module, name, getattr(module, other))
