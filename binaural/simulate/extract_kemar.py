"""Make ``kemar.npz``, the compact head-related impulse responses of the simulation's ears.

    pip download --no-deps slab
    python -m binaural.simulate.extract_kemar slab-1.8.2-py3-none-any.whl

The measurement (Gardner and Martin, MIT Media Lab Technical Report 280, 1994) travels inside the wheel as
a pickle. It is read with an unpickler that builds arrays and nothing else, and slab itself is never
imported. Three steps make 5.8 MB small without changing what the ears tell:

* the right ear is dropped: in this measurement it mirrors the left one exactly, which is checked here;
* the mean over all directions (loudspeaker, microphone, ear canal) is divided out: diffuse-field
  equalisation, after which the simulation's own source has the spectrum that it states;
* each response is stored as its onset and the 96 samples (2.2 ms) that follow it.
"""

from __future__ import annotations

import argparse
import bz2
import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TAPS = 96
PRE_ONSET = 8  # samples kept before the onset, where the rise begins
FADE = 24  # samples over which the end fades out
FFT_SIZE = 4096
EQUALISED = (150.0, 18_000.0)  # Hz; beyond, the correction keeps its value at the edge
MEMBER = "slab/data/mit_kemar_normal_pinna.bz2"


class _Attributes:
    """Stands in for slab's classes: keeps the attributes of the pickled object, has no behaviour."""


class _ArrayUnpickler(pickle.Unpickler):
    """Rebuilds numpy arrays and attribute holders; refuses every other name."""

    def find_class(self, module: str, name: str) -> Any:
        if module.startswith("slab."):
            return _Attributes
        if (module, name) in {("numpy", "ndarray"), ("numpy", "dtype")}:
            return getattr(np, name)
        if (module, name) == ("numpy.core.multiarray", "_reconstruct"):
            return np.array(0).__reduce__()[0]  # numpy's own rebuilding function, wherever it lives
        raise pickle.UnpicklingError(f"unexpected {module}.{name} in {MEMBER}")


def read_measurement(wheel: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read the responses out of slab's wheel.

    Returns:
        responses [710, 512, 2] (left ear, right ear) at 44.1 kHz, and angles [710, 2]: azimuth in degrees
        counter-clockwise (90 is left), elevation in degrees.
    """
    with zipfile.ZipFile(wheel) as archive:
        measurement = _ArrayUnpickler(io.BytesIO(bz2.decompress(archive.read(MEMBER)))).load()
    if measurement.samplerate != 44_100:
        raise ValueError(f"{wheel}: expected responses at 44100 Hz, found {measurement.samplerate}")
    responses = np.stack([response.data for response in measurement.data])
    return responses, np.asarray(measurement.sources)[:, :2]


def check_mirrored(responses: NDArray[np.float64], angles: NDArray[np.float64]) -> None:
    """Raise ValueError unless the right ear at azimuth -a equals the left ear at azimuth a, everywhere."""
    for (azimuth, elevation), response in zip(angles, responses, strict=True):
        turn = np.abs((angles[:, 0] + azimuth + 180) % 360 - 180)
        mirrored = np.argmin(turn + 1000 * np.abs(angles[:, 1] - elevation))
        if not np.array_equal(response[:, 0], responses[mirrored, :, 1]):
            raise ValueError(f"the ears differ at azimuth {azimuth}, elevation {elevation}")


def diffuse_field_equalise(responses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Divide the root mean square over all directions out of responses [D, T], by a minimum-phase filter."""
    spectra = np.fft.rfft(responses, FFT_SIZE, axis=1)
    frequency = np.fft.rfftfreq(FFT_SIZE, 1 / 44_100)
    level = np.sqrt(np.mean(np.abs(spectra) ** 2, axis=0))
    low, high = np.searchsorted(frequency, EQUALISED)
    level[:low], level[high:] = level[low], level[high]
    # Minimum phase from the real cepstrum (Oppenheim and Schafer): fold the anti-causal half over.
    cepstrum = np.fft.irfft(-np.log(level))
    cepstrum[1 : FFT_SIZE // 2] *= 2
    cepstrum[FFT_SIZE // 2 + 1 :] = 0
    inverse = np.exp(np.fft.rfft(cepstrum))
    return np.fft.irfft(spectra * inverse, axis=1)[:, : responses.shape[1]]


def compact(responses: NDArray[np.float64]) -> tuple[NDArray[np.uint8], NDArray[np.int16], float]:
    """Split responses [D, T] into onset [D] (samples), shape [D, 96] as int16 and the scale of the latter."""
    peak = np.abs(responses).max(axis=1, keepdims=True)
    onset = np.argmax(np.abs(responses) > 0.1 * peak, axis=1) - PRE_ONSET
    shape = responses[np.arange(len(responses))[:, None], onset[:, None] + np.arange(TAPS)]
    shape[:, -FADE:] *= 0.5 + 0.5 * np.cos(np.linspace(0, np.pi, FADE))
    scale = float(np.abs(shape).max() / 32_767)
    return (onset - onset.min()).astype(np.uint8), np.round(shape / scale).astype(np.int16), scale


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Extract the MIT KEMAR responses from slab's wheel (pip download --no-deps slab)."
    )
    parser.add_argument("wheel", type=Path, help="the downloaded slab-*.whl")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).with_name("kemar.npz"),
        help="file to write (default: the one the simulation reads)",
    )
    arguments = parser.parse_args()
    responses, angles = read_measurement(arguments.wheel)
    check_mirrored(responses, angles)
    onset, shape, scale = compact(diffuse_field_equalise(responses[:, :, 0]))
    np.savez_compressed(
        arguments.output,
        angles=angles.astype(np.float32),
        onset=onset,
        lead=PRE_ONSET,
        shape=shape,
        scale=scale,
    )
    print(f"{arguments.output}: {len(onset)} directions, {arguments.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()
