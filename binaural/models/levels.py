"""The five levels of the encoders: their numbers, widths, and what may be chosen at each."""

LEVELS = 5
"""Levels are numbered from 1, the finest, to 5; each has half the height and width of the one before."""

ALL_SKIPS = (1, 2, 3, 4)
"""The levels that can have a skip connection to the decoder."""

VIEW_TARGET_LEVEL = 3
"""The decoder level whose feature map the output of the view transform is added to."""

_WIDTHS = (1, 2, 4, 8, 8)  # of the five levels, times base_channels


def level_channels(base_channels: int) -> tuple[int, ...]:
    """Channels of the five encoder levels, finest first."""
    return tuple(base_channels * width for width in _WIDTHS)
