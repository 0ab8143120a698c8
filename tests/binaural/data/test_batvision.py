"""BatVision V1 and V2: layouts, items, the official preprocessing, the real recording."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
from torch.nn import functional as F
from torch.utils.data import DataLoader

from binaural.data import BatVisionV1, BatVisionV2, open_split
from binaural.data.files import read_array, read_wav


def official_spectrogram(waveform: torch.Tensor, size: int) -> torch.Tensor:
    magnitude = torchaudio.transforms.Spectrogram(n_fft=512, win_length=64, hop_length=16, power=1.0)(
        waveform
    )
    return F.interpolate(magnitude[None], size=(size, size), mode="bilinear", align_corners=False)[0]


def official_depth(millimetres: np.ndarray, max_depth: float, size: int) -> torch.Tensor:
    """Depth in [0, 1]."""
    depth = millimetres.astype(np.float32) / 1000
    depth[depth > max_depth] = max_depth
    tensor = torch.from_numpy(depth)[None, None]
    return F.interpolate(tensor, size=(size, size), mode="bilinear", align_corners=False)[0] / max_depth


@pytest.mark.parametrize(("max_depth", "size"), [(30.0, 256), (10.0, 64)])
def test_v2_official_equals_an_independent_one(v2_root, max_depth, size):
    data = BatVisionV2(v2_root, "train", max_depth=max_depth, image_size=size, preprocessing="official")
    spectrogram, depth = data[1]
    samples, _ = soundfile.read(v2_root / "Attic/audio/audio_1.wav", dtype="float32")
    waveform = torch.from_numpy(samples.T.copy())[:, : int(2 * max_depth / 340 * 44100)]
    torch.testing.assert_close(spectrogram, official_spectrogram(waveform, size), rtol=1e-5, atol=1e-6)
    expected = official_depth(np.load(v2_root / "Attic/depth/depth_1.npy"), max_depth, size)
    torch.testing.assert_close(depth / max_depth, expected, rtol=1e-6, atol=1e-7)


def test_v2_official_cut_at_30_m(v2_root):
    assert BatVisionV2(v2_root, "train", max_depth=30, preprocessing="official").load(0)[0].shape == (2, 7782)


def test_v1_official_equals_an_independent_one(v1_root):
    data = BatVisionV1(v1_root, "train", image_size=128, preprocessing="official")
    spectrogram, depth = data[1]
    ears = [np.load(v1_root / f"audio/{ear}_1.npy") for ear in ("left", "right")]
    expected = official_spectrogram(torch.from_numpy(np.stack(ears)), 128)
    torch.testing.assert_close(spectrogram, expected, rtol=1e-5, atol=1e-6)
    stored = np.load(v1_root / "depth/depth_1.npy")
    stored[~np.isfinite(stored) | (stored < 0)] = 0
    torch.testing.assert_close(depth / 12, official_depth(stored, 12.0, 128), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("preprocessing", ["default", "official"])
def test_v2_items(v2_root, preprocessing):
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=64, preprocessing=preprocessing)
    assert len(data) == 5
    for spectrogram, depth in data:
        assert spectrogram.shape == (2, 64, 64)
        assert depth.shape == (1, 64, 64)
        assert spectrogram.dtype == depth.dtype == torch.float32
        assert torch.isfinite(spectrogram).all()
        assert depth.min() == 0
        assert depth.max() <= 10


def test_v2_default_depth_was_measured(v2_root):
    depth = BatVisionV2(v2_root, "train", max_depth=10, image_size=64)[0][1]
    stored = np.load(v2_root / "Attic/depth/depth_0.npy").astype(np.float32)
    nearest = F.interpolate(torch.from_numpy(stored)[None, None], size=(64, 64), mode="nearest-exact")[0]
    torch.testing.assert_close(depth, (nearest / 1000).clamp(max=10), rtol=0, atol=0)


def test_v2_default_covers_the_echo_from_max_depth(v2_root):
    """An echo just nearer than max_depth shows in the last columns; the level between the ears survives."""
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=64)
    audio = np.zeros((20000, 2), np.float32)
    arrival = 269 + int(2 * 9.9 / 343 * 44100)
    audio[arrival] = [0.5, 0.05]
    soundfile.write(v2_root / "Attic/audio/audio_0.wav", audio, 44100, subtype="FLOAT")
    spectrogram = data[0][0]
    columns = spectrogram[0].mean(0)
    assert columns.argmax() >= 60
    assert columns[:55].max() == 0
    difference = (spectrogram[0] - spectrogram[1])[:, columns.argmax()] * 90
    torch.testing.assert_close(difference, torch.full_like(difference, 20.0), rtol=0, atol=0.5)


def test_v2_float32_depth_is_the_same(v2_root):
    data = BatVisionV2(v2_root, "train", image_size=64)
    before = data[0][1]
    path = v2_root / "Attic/depth/depth_0.npy"
    stored = np.load(path).astype(np.float32)
    stored[stored == 0] = np.nan
    np.save(path, stored)
    assert torch.equal(data[0][1], before)


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "PCM_32", "FLOAT"])
def test_wav_is_scaled_by_its_full_scale(v2_root, subtype):
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=64)
    path = v2_root / "Attic/audio/audio_0.wav"
    expected, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, expected, 44100, subtype=subtype)
    waveform = data.load(0)[0]
    torch.testing.assert_close(
        waveform, torch.from_numpy(expected.T[:, : waveform.shape[1]].copy()), rtol=0, atol=4e-5
    )


def test_v2_locations(v2_root):
    (v2_root / "notes.txt").write_text("a stray file")
    (v2_root / "figures").mkdir()
    names = lambda **options: [r.location for r in BatVisionV2(v2_root, "train", **options).recordings]  # noqa: E731
    assert names() == ["Attic"] * 3 + ["Hall"] * 2
    assert names(locations=["Hall"]) == ["Hall"] * 2
    assert names(exclude_locations=["Hall"]) == ["Attic"] * 3
    with pytest.raises(ValueError, match=r"no location 'Cellar'.*Attic.*Hall"):
        names(exclude_locations=["Cellar"])
    with pytest.raises(TypeError, match="exclude_locations must be several names, got the one string 'Hall'"):
        names(exclude_locations="Hall")
    with pytest.raises(ValueError, match="leave nothing"):
        names(locations=["Hall"], exclude_locations=["Hall"])


def test_v2_order_is_by_name(make_v2):
    names = ["Cellar", "Attic", "Hall", "Balcony", "Garden", "Den"]
    data = BatVisionV2(make_v2(dict.fromkeys(names, 1)), "train")
    assert [recording.location for recording in data.recordings] == sorted(names)


def test_depths_are_those_of_the_items(v2_root):
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=32)
    depths = list(data.depths())
    assert len(depths) == 5
    assert all(torch.equal(depth, item[1]) for depth, item in zip(depths, data, strict=True))


def test_open_split_by_name(v2_root, v1_root):
    for name in ("simulated", "batvisionv2"):
        data = open_split(name, v2_root, "train", image_size=32, locations=["Hall"])
        assert isinstance(data, BatVisionV2)
        assert (len(data), data.image_size) == (2, 32)
    assert isinstance(open_split("batvisionv1", v1_root, "train"), BatVisionV1)
    with pytest.raises(ValueError, match="dataset must be one of simulated, .*got 'nyu'"):
        open_split("nyu", v2_root, "train")


def test_blacklist(v2_root, v1_root):
    data = BatVisionV2(v2_root, "train", blacklist=["Attic/audio/audio_1.wav", "Hall/depth/depth_0.npy"])
    assert [r.depth.stem for r in data.recordings] == ["depth_0", "depth_2", "depth_1"]
    assert len(BatVisionV1(v1_root, "train", blacklist=["audio/right_0.npy"])) == 1
    with pytest.raises(TypeError, match="blacklist must be several names"):
        BatVisionV1(v1_root, "train", blacklist="bad.txt")
    with pytest.raises(ValueError, match="blacklist leaves none of 2"):
        BatVisionV1(v1_root, "train", blacklist=["audio/right_0.npy", "depth/depth_1.npy"])


def test_v1_default(v1_root):
    data = BatVisionV1(v1_root, "train", image_size=64)
    waveform, _ = data.load(0)
    left = np.load(v1_root / "audio/left_0.npy")
    assert torch.equal(waveform[0], torch.from_numpy(left[970 : 970 + 2646]))
    spectrogram, depth = data[0]
    assert spectrogram.shape == (2, 64, 64)
    assert depth.shape == (1, 64, 64)
    assert torch.isfinite(depth).all()
    assert depth.min() == 0
    assert depth.max() <= 12
    whole = BatVisionV1(v1_root, "train", image_size=64, crop=None)
    assert whole.load(0)[0].shape == (2, 4000)
    assert BatVisionV1(v1_root, "train", crop=(100, 3000)).load(0)[0].shape == (2, 2900)


def test_v1_integer_samples_are_scaled(v1_root):
    data = BatVisionV1(v1_root, "train", image_size=64)
    before = data.load(0)[0]
    for ear in ("left", "right"):
        path = v1_root / f"audio/{ear}_0.npy"
        np.save(path, np.round(np.load(path) * 2**15).astype(np.int16))
    torch.testing.assert_close(data.load(0)[0], before, rtol=0, atol=2e-5)


def test_workers_count_what_they_meet(v2_root):
    np.save(v2_root / "Attic/depth/depth_2.npy", np.zeros((90, 160), np.uint16))
    audio, _ = soundfile.read(v2_root / "Hall/audio/audio_0.wav")
    soundfile.write(v2_root / "Hall/audio/audio_0.wav", np.repeat(audio, 2, axis=0), 88200)
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=32)
    assert len(list(DataLoader(data, batch_size=2, num_workers=2))) == 3
    assert data.unmeasured == [v2_root / "Attic/depth/depth_2.npy"]
    assert data.resampled == [v2_root / "Hall/audio/audio_0.wav"]


def test_unmeasured_depth_warns_once(v2_root):
    for i in (0, 1):
        np.save(v2_root / f"Attic/depth/depth_{i}.npy", np.full((90, 160), np.nan, np.float32))
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=32)
    with pytest.warns(UserWarning, match=r"depth_0\.npy: no valid depth") as caught:
        list(data)
    assert len(caught) == 1
    assert len(data.unmeasured) == 2
    assert data[0][1].eq(0).all()


def test_resampled_warns_once_and_keeps_time_and_level(v2_root):
    time = np.arange(40000) / 96000
    tone = 0.5 * np.sin(2 * np.pi * 1000 * time) * (time > 0.05)
    for i in (0, 1):
        soundfile.write(v2_root / f"Attic/audio/audio_{i}.wav", np.stack([tone, tone], 1), 96000)
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=64)
    with pytest.warns(UserWarning, match=r"audio_0\.wav: recorded at 96000 Hz") as caught:
        waveforms = [data.load(i)[0] for i in range(3)]
    assert len(caught) == 1
    waveform = waveforms[0]
    assert waveform.shape == waveforms[2].shape
    onset = round(0.05 * 44100)
    assert waveform[:, : onset - 50].abs().max() < 1e-2
    assert waveform[:, onset + 50 :].abs().max() == pytest.approx(0.5, abs=0.01)


def test_augmentation_follows_the_seed(v2_root):
    data = BatVisionV2(v2_root, "train", max_depth=10, image_size=32, augment=True)
    torch.manual_seed(3)
    first = [data[0] for _ in range(6)]
    torch.manual_seed(3)
    second = [data[0] for _ in range(6)]
    assert all(
        torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True)
    )
    plain = BatVisionV2(v2_root, "train", max_depth=10, image_size=32)[0]
    mirrored = {torch.equal(depth, plain[1].flip(-1)) for _, depth in first}
    assert mirrored == {True, False}
    assert all(torch.equal(d, plain[1]) or torch.equal(d, plain[1].flip(-1)) for _, d in first)


def test_real_files_hold_what_was_recorded(batvision_sample: Path):
    recording = BatVisionV2(batvision_sample, "test").recordings[0]
    waveform, rate = read_wav(recording.audio[0], 10**6)
    assert rate == 44100
    assert waveform.shape == (2, 20000)
    torch.testing.assert_close(
        waveform.abs().amax(1), torch.tensor([0.60182285, 0.75433373]), rtol=0, atol=1e-8
    )
    stored = read_array(recording.depth)
    measured = stored[stored > 0]
    assert stored.shape == (720, 1280)
    assert stored.dtype == np.uint16
    assert (stored == 0).mean() == pytest.approx(0.216656, abs=5e-7)
    assert (measured.min(), np.median(measured), measured.max()) == (353, 1029, 15711)


@pytest.mark.parametrize("preprocessing", ["default", "official"])
def test_real_recording(batvision_sample: Path, preprocessing):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = BatVisionV2(
            batvision_sample, "train", max_depth=30, image_size=256, preprocessing=preprocessing
        )
        spectrogram, depth = data[0]
    assert len(data) == 1
    waveform = data.load(0)[0]
    torch.testing.assert_close(
        waveform.abs().amax(1), torch.tensor([0.60182285, 0.75433373]), rtol=0, atol=1e-7
    )
    assert waveform[:, :260].abs().max() < 0.05 < waveform[:, 269:330].abs().max()
    assert spectrogram.shape == (2, 256, 256)
    assert torch.isfinite(spectrogram).all()
    if preprocessing == "default":
        assert 0 <= spectrogram.min() < spectrogram.max() <= 1
        measured = depth[depth > 0]
        assert (depth == 0).float().mean() == pytest.approx(0.216656, abs=0.005)
        assert measured.min() >= 0.353
        assert measured.max() <= 15.711
        assert measured.median() == pytest.approx(1.029, abs=0.02)
    else:
        samples, _ = soundfile.read(data.recordings[0].audio[0], dtype="float32")
        expected = official_spectrogram(torch.from_numpy(samples.T[:, :7782].copy()), 256)
        torch.testing.assert_close(spectrogram, expected, rtol=1e-5, atol=1e-6)
        expected = official_depth(np.load(data.recordings[0].depth), 30.0, 256)
        torch.testing.assert_close(depth / 30, expected, rtol=1e-6, atol=1e-7)
