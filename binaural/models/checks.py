"""Checks of the networks' arguments and inputs."""

from collections.abc import Sequence

from torch import Tensor

from binaural.features import channel_names
from binaural.models.levels import ALL_SKIPS, LEVELS, VIEW_TARGET_LEVEL


def check_sizes(base_channels: int, max_depth: float) -> None:
    """Raise ValueError unless both are positive."""
    if base_channels < 1:
        raise ValueError(f"base_channels must be at least 1, got {base_channels}")
    if not max_depth > 0:
        raise ValueError(f"max_depth must be positive, in metres, got {max_depth}")


def check_levels(name: str, levels: Sequence[int], deepest: int = LEVELS) -> None:
    """Raise ValueError, naming the argument, unless all are different levels of the encoder."""
    if len(set(levels)) != len(levels) or not all(1 <= level <= deepest for level in levels):
        raise ValueError(f"{name} must be different levels from 1 to {deepest}, got {tuple(levels)}")


def check_skips(
    skip_levels: Sequence[int], view_levels: Sequence[int], attention_levels: Sequence[int] = ()
) -> None:
    """Raise ValueError where a level cannot have a skip connection, or attention at one has no effect."""
    check_levels("skip_levels", skip_levels, max(ALL_SKIPS))
    if view_levels and VIEW_TARGET_LEVEL not in skip_levels:
        raise ValueError(
            f"skip_levels must include {VIEW_TARGET_LEVEL}, the level that view transforms add to, "
            f"got {tuple(skip_levels)}"
        )
    unused = sorted({*attention_levels} - {*skip_levels, *view_levels, LEVELS})
    if unused:
        raise ValueError(
            f"attention_levels: attention at {tuple(unused)} has no effect, add these levels to skip_levels, "
            f"got {tuple(skip_levels)}, or to view_levels, got {tuple(view_levels)}"
        )


def check_input(x: Tensor, features: Sequence[str], smallest: int = 2 ** (LEVELS - 1)) -> None:
    """Raise ValueError unless `x` is [B, C of the features, H, W], H and W at least `smallest`."""
    channels = channel_names(features)
    if x.dim() != 4 or x.shape[1] != len(channels) or min(x.shape[2:]) < smallest:
        raise ValueError(
            f"the input must be [B, {len(channels)}, H, W] ({', '.join(channels)}) with H and W of at least "
            f"{smallest}, got {list(x.shape)}"
        )
