"""Kinds of input channels, and how they change when the ears are swapped or muted.

A network's input is [B, C, H, W] (W time): the channels of its features, in the order of their names. The
modules that make them of a waveform are in `binaural.data.front_end`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MAGNITUDE = ("magnitude",)
CAMERA = ("camera",)


@dataclass(frozen=True)
class Feature:
    """One kind of channels.

    Attributes:
        channels: their names, for people.
        swap: the same [..., C, H, W] as it is with the ears swapped, which is the room seen in a mirror.
        per_ear: the channels are those of the left ear and of the right ear; otherwise each tells how the
            two differ.
    """

    channels: tuple[str, ...]
    swap: Callable[[Tensor], Tensor]
    per_ear: bool = True


def _swap_channels(x: Tensor) -> Tensor:
    return x.flip(-3)


def _change_sign_of_sine(x: Tensor) -> Tensor:
    sine, cosine = x.split(1, dim=-3)
    return torch.cat([-sine, cosine], dim=-3)


def _reverse_lags(x: Tensor) -> Tensor:
    return x.flip(-2)


def _mirror_picture(x: Tensor) -> Tensor:
    return x.flip(-1)


FEATURES = {
    "magnitude": Feature(("left ear", "right ear"), _swap_channels),
    "ipd": Feature(("sine of phase difference", "cosine"), _change_sign_of_sine, per_ear=False),
    "gcc_phat": Feature(("cross-correlogram",), _reverse_lags, per_ear=False),
    "waveform": Feature(("left ear's waveform", "right ear's waveform"), _swap_channels),
    "camera": Feature(("red", "green", "blue"), _mirror_picture, per_ear=False),
}
SOUND = tuple(name for name in FEATURES if name not in CAMERA)


def check_features(features: Sequence[str]) -> tuple[str, ...]:
    """The features, if they can feed one network.

    Raises:
        ValueError: an unknown name, the same twice, none, or the camera together with sound.
    """
    names = tuple(features)
    if not names or len(set(names)) != len(names) or not set(names) <= FEATURES.keys():
        raise ValueError(f"features must be different ones of {', '.join(SOUND)}, got {names}")
    if set(CAMERA) < set(names):
        raise ValueError(f"the camera's picture is a network's only input or none of it, got {names}")
    return names


def channel_names(features: Sequence[str]) -> list[str]:
    """Of a network's input, in order."""
    return [channel for name in features for channel in FEATURES[name].channels]


def swap_ears(x: Tensor, features: Sequence[str]) -> Tensor:
    """Input [..., C, H, W] as it would be with the ears swapped."""
    return _join([FEATURES[name].swap(part) for name, part in _split(x, features)])


def mute(x: Tensor, features: Sequence[str], ear: int) -> Tensor:
    """Input [..., C, H, W] with the left (0) or the right (1) ear muted."""
    unmuted = x.new_tensor([1.0, 1.0])
    unmuted[ear] = 0.0
    return _join(
        [
            part * unmuted.view(2, 1, 1) if FEATURES[name].per_ear else torch.zeros_like(part)
            for name, part in _split(x, features)
        ]
    )


def ears(x: Tensor, features: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Input [..., C, H, W] of each ear: its own channels, and the difference of the other ear from it.

    Of what tells the difference the right ear gets what the left one would with the ears swapped: the phase
    difference with its sign changed, the lags reversed. So both are alike to encoders with the same weights.
    """
    left, right = [], []
    for name, part in _split(x, features):
        feature = FEATURES[name]
        pair = part.split(1, dim=-3) if feature.per_ear else (part, feature.swap(part))
        left.append(pair[0])
        right.append(pair[1])
    return _join(left), _join(right)


def ear_channels(features: Sequence[str]) -> int:
    """Channels that `ears` gives to each.

    Raises:
        ValueError: the camera's picture, which has no ears.
    """
    if set(CAMERA) & set(features):
        raise ValueError("features must be of sound for a network with two ears, got the camera's picture")
    return sum(1 if FEATURES[name].per_ear else len(FEATURES[name].channels) for name in features)


def _split(x: Tensor, features: Sequence[str]) -> list[tuple[str, Tensor]]:
    sizes = [len(FEATURES[name].channels) for name in features]
    return list(zip(features, x.split(sizes, dim=-3), strict=True))


def _join(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=-3)
