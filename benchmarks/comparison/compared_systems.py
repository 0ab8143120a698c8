"""The compared systems: the name in the table and the arguments of `train.py`."""

from dataclasses import dataclass

from benchmarks.step_networks import LEAN
from binaural.features import CAMERA, MAGNITUDE

TEACHER = "adabins_teacher"
PIX2PIX_CHANNELS = 64
"""Base channels of the published baseline, for any size of the others."""


@dataclass(frozen=True)
class System:
    """A row of the table.

    Attributes:
        arguments: arguments of `train.py`, in addition to those that all systems share.
        taught: distilled from the run of `TEACHER` with the same seed.
        shuffled: a control, trained with the depth maps of other rooms.
    """

    arguments: tuple[str, ...]
    taught: bool = False
    shuffled: bool = False

    @property
    def samples(self) -> str:
        """Name of the cached samples; systems with the same name share a cache."""
        at = self.arguments.index("--features") + 1 if "--features" in self.arguments else None
        features = MAGNITUDE if at is None else self.arguments[at:]
        if TEACHER in self.arguments:
            features = CAMERA
        return "+".join(features) + "+camera" * self.taught + "+shuffled" * self.shuffled


_FRONT_ENDS = {
    "magnitude+ipd": ("magnitude", "ipd"),
    "gcc_phat": ("gcc_phat",),
    "magnitude+gcc_phat": ("magnitude", "gcc_phat"),
    "waveform": ("waveform",),
}
_BINAURAL = ("--model", "binaural")
_LEAN = (*_BINAURAL, "--ear_width", str(LEAN))
_UNET = ("--model", "unet")
_ALL_SKIPS = ("--skip_levels", "1", "2", "3", "4", "--attention_levels", "2", "3", "4", "5")
SYSTEMS: dict[str, System] = {
    "binaural": System(_BINAURAL),
    "unet": System(_UNET),
    "unet_pix2pix": System(("--model", "unet_pix2pix", "--base_channels", str(PIX2PIX_CHANNELS))),
    "base_residual": System(("--model", "base_residual")),
    "adabins_distill": System(("--model", "adabins_distill"), taught=True),
    "binaural, no attention": System((*_BINAURAL, "--attention_levels")),
    "binaural, all skips": System((*_BINAURAL, *_ALL_SKIPS)),
    "binaural, all skips, no view transform": System((*_BINAURAL, *_ALL_SKIPS, "--view_levels")),
    "unet, view transform, one skip": System((*_UNET, "--view_levels", "3", "--skip_levels", "3")),
    "binaural, lean ears": System(_LEAN),
    "binaural, lean ears, own weights": System((*_LEAN, "--no-symmetric")),
    "group_correlation": System((*_BINAURAL, "--matching", "group_correlation")),
    "concatenation": System((*_BINAURAL, "--matching", "concatenation")),
    **{
        f"{model}, {name}": System((*arguments, "--features", *features))
        for name, features in _FRONT_ENDS.items()
        for model, arguments in (("binaural", _BINAURAL), ("unet", _UNET))
    },
    TEACHER: System(("--model", TEACHER)),
    "binaural, shuffled labels": System(_BINAURAL, shuffled=True),
    "unet, shuffled labels": System(_UNET, shuffled=True),
}
BASELINE = "unet"
