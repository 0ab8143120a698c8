"""Silent ears, clipping, and a chirp at the wrong time."""

import numpy as np
import pytest
import soundfile
import torch

from binaural.data import BatVisionV2
from binaural.data.recording_checks import recording_faults

ONSETS = BatVisionV2.ONSETS


def recording(onset: float = 0.0062, *, silent: tuple[int, ...] = (), gain: float = 0.5) -> torch.Tensor:
    """A chirp [2, 5000] that begins at `onset` seconds, over noise."""
    time = torch.arange(132) / 44100
    chirp = torch.sin(2 * torch.pi * (20 * time + 3.3e6 * time**2)) * torch.hann_window(132)
    waveform = 1e-3 * torch.randn(2, 5000, generator=torch.Generator().manual_seed(0))
    start = round(onset * 44100)
    waveform[:, start : start + 132] += gain * chirp
    waveform[list(silent)] = 0.01  # a constant offset is silence too
    return waveform.clamp(-1, 1)


@pytest.mark.parametrize(
    ("waveform", "fault"),
    [
        (recording(silent=(0,)), "the left ear is silent"),
        (recording(silent=(1,)), "the right ear is silent"),
        (recording(silent=(0, 1)), "both ears are silent"),
        (recording(gain=4), "clipped, "),
        (recording(0.0262), "the chirp arrives after 26."),
        (recording(0.0), "the chirp arrives after 0."),
    ],
)
def test_each_fault_is_named_alone(waveform, fault):
    (said,) = recording_faults(waveform, ONSETS)
    assert said.startswith(fault)


def test_a_good_recording_has_no_fault(batvision_sample):
    assert recording_faults(recording(), ONSETS) == []
    assert recording_faults(recording(0.0262), None) == []
    assert recording_faults(BatVisionV2(batvision_sample, "test").read_recording(0), ONSETS) == []


@pytest.mark.parametrize("ears", [(0,), (1,), (0, 1)])
def test_training_data_with_a_silent_ear_warn_once_and_are_counted(v2_root, ears):
    for index in (0, 1):
        path = v2_root / f"Attic/audio/audio_{index}.wav"
        samples, rate = soundfile.read(path)
        samples[:, list(ears)] = 0
        soundfile.write(path, samples, rate)
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=32)
    with pytest.warns(UserWarning, match=r"audio_0\.wav: .* silent") as caught:
        inputs = torch.stack([item[0] for item in data])
    assert len(caught) == 1
    assert torch.isfinite(inputs).all()
    assert len(data.silent) == 2
    assert data.remarks() == [f"2 of 5 recordings with a silent ear, the first {data.recordings[0].audio[0]}"]


def test_recordings_that_begin_with_silence_count_too(v2_root):
    path = v2_root / "Hall/audio/audio_0.wav"
    samples, rate = soundfile.read(path)
    soundfile.write(path, np.concatenate((np.zeros((20000, 2)), samples)), rate)
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=32)
    with pytest.warns(UserWarning, match="both ears are silent"):
        list(data)
    assert data.silent == [path]
