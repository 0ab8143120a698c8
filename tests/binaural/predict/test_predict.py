"""`python -m binaural.predict` on recordings of a few rooms."""

import errno
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
import torchaudio
import trimesh
from PIL import Image

from binaural import load_network
from binaural.data import BatVisionV2
from binaural.predict.__main__ import main
from binaural.predict.point_cloud import point_cloud

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def wavs(rooms, tmp_path):
    """Three recordings, a.wav, b.wav and c.first.WAV."""
    folder = tmp_path / "wavs"
    folder.mkdir()
    for recording, name in zip(BatVisionV2(rooms, "test").recordings, ("a", "b", "c.first"), strict=False):
        shutil.copy(recording.audio[0], folder / f"{name}.{'WAV' if name == 'c.first' else 'wav'}")
    return folder


@pytest.fixture
def output(tmp_path):
    return tmp_path / "depth"


def predict(folder, output, *more):
    main([str(folder), *map(str, more), "--output", str(output), "--device", "cpu"])


def test_depth_is_the_networks_and_files_are_named_after_the_input(rooms, wavs, save_network, output, capsys):
    folder = save_network("a")
    predict(folder, output, wavs, "--batch_size", "2")
    data = BatVisionV2(rooms, "test", max_depth=10.0, image_size=32)
    network = load_network(folder)
    for index, name in enumerate(("a", "b", "c.first")):
        depth = np.load(output / f"{name}.npy", allow_pickle=False)
        assert depth.dtype == np.float32
        assert depth.shape == (32, 32)
        with torch.no_grad():
            expected = network(data[index][0][None])[0, 0].numpy()
        np.testing.assert_allclose(depth, expected, rtol=1e-4)
        cloud = trimesh.load(output / f"{name}.ply")
        np.testing.assert_allclose(cloud.vertices, point_cloud(depth), rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in output.iterdir()) == sorted(
        f"{name}.{kind}" for name in ("a", "b", "c.first") for kind in ("npy", "png", "ply")
    )
    out = capsys.readouterr().out
    assert "3 recordings in" in out
    assert "network" in out


def test_picture_shows_the_depth_in_colour(wavs, save_network, output, monkeypatch):
    """Near on the left, far on the right: viridis runs from violet to yellow."""
    ramp = torch.linspace(0.1, 8, 32).expand(1, 1, 32, 32)
    monkeypatch.setattr("binaural.predict.__main__.predict", lambda *_, **__: ramp)
    predict(save_network("a"), output, wavs / "a.wav", "--formats", "png")
    assert [path.name for path in output.iterdir()] == ["a.png"]
    picture = np.array(Image.open(output / "a.png").convert("RGB")).astype(int)
    row = picture[picture.shape[0] // 2]
    violet = np.flatnonzero(np.abs(row - [68, 1, 84]).sum(-1) < 60)
    yellow = np.flatnonzero(np.abs(row - [253, 231, 37]).sum(-1) < 60)
    assert len(violet)
    assert len(yellow)
    assert violet.min() < 100
    assert yellow.min() > picture.shape[1] / 2


def test_another_sample_rate_gives_the_same_depth(rooms, wavs, save_network, output):
    """48 kHz: decaying noise up to 14 kHz, which a resampler leaves as it is."""
    noise = torch.randn(2, 20000, generator=torch.Generator().manual_seed(0))
    spectrum = torch.fft.rfft(noise * torch.hann_window(20000))
    spectrum[:, int(14000 / 44100 * 20000) :] = 0
    noise = 0.1 * torch.fft.irfft(spectrum, 20000)
    soundfile.write(wavs / "cd.wav", noise.T.numpy(), 44100, subtype="FLOAT")
    studio = torchaudio.functional.resample(noise, 44100, 48000, lowpass_filter_width=64)
    soundfile.write(wavs / "studio.wav", studio.T.numpy(), 48000, subtype="FLOAT")
    soundfile.write(wavs / "wrong.wav", studio.T.numpy(), 44100, subtype="FLOAT")
    folder = save_network("a")
    predict(folder, output, *(wavs / f"{name}.wav" for name in ("cd", "studio", "wrong")), "--formats", "npy")
    cd, studio, wrong = (np.load(output / f"{name}.npy") for name in ("cd", "studio", "wrong"))
    difference = np.abs(cd - studio).max()
    assert difference < 0.02 * np.ptp(cd)
    assert difference < 0.1 * np.abs(cd - wrong).max()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: soundfile.write(path, np.zeros(20000), 44100), "1 channel(s), expected 2"),
        (lambda path: soundfile.write(path, np.zeros((20000, 4)), 44100), "4 channel(s), expected 2"),
        (lambda path: soundfile.write(path, np.zeros((500, 2)), 44100), "500 samples at 44.1 kHz, expected"),
        (lambda path: path.write_text("hello"), "not a readable WAV file"),
        (lambda path: path.write_bytes(b""), "not a readable WAV file"),
    ],
)
def test_what_is_no_recording_is_named_and_the_others_are_predicted(
    wavs, save_network, output, make, message, capsys
):
    make(wavs / "bad.wav")
    with pytest.raises(SystemExit) as error:
        predict(save_network("a"), output, wavs, "--formats", "npy")
    assert "1 of the recordings could not be used" in str(error.value.code)
    said = capsys.readouterr()
    assert f"{wavs / 'bad.wav'}: {message}" in said.err
    assert "3 recordings" in said.out
    assert sorted(path.name for path in output.iterdir()) == ["a.npy", "b.npy", "c.first.npy"]


def test_faults_of_a_recording_are_warnings(wavs, save_network, output, capsys):
    samples, rate = soundfile.read(wavs / "a.wav")
    changed = {
        "left": ("the left ear is silent", samples * [0, 1]),
        "clipped": ("clipped, ", (30 * samples).clip(-1, 1)),
        "late": ("the chirp arrives after 26.", np.pad(samples, ((882, 0), (0, 0)))),
    }
    for name, (_, values) in changed.items():
        soundfile.write(wavs / f"{name}.wav", values, rate)
    predict(save_network("a"), output, wavs, "--formats", "npy")
    said = capsys.readouterr().err
    for name, (fault, _) in changed.items():
        assert f"warning: {wavs / name}.wav: {fault}" in said
    for name in ("a", "b", "c.first"):
        assert f"{wavs / name}.wav" not in said
        assert (output / f"{name}.npy").exists()


def test_hidden_files_are_skipped(wavs, save_network, output):
    (wavs / "._a.wav").write_bytes(b"\0\5\x16\7" + bytes(4000))
    predict(save_network("a"), output, wavs, "--formats", "npy")
    assert sorted(path.name for path in output.iterdir()) == ["a.npy", "b.npy", "c.first.npy"]


def test_a_runs_folder_stands_for_its_best(wavs, save_network, output):
    best = save_network("run/best")
    (best.parent / "config.json").write_text("{}")  # the run's options, not a network
    predict(best.parent, output / "run", wavs / "a.wav", "--formats", "npy")
    predict(best, output / "best", wavs / "a.wav", "--formats", "npy")
    assert (output / "run/a.npy").read_bytes() == (output / "best/a.npy").read_bytes()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(wavs, save_network, output, monkeypatch):
    def fail(**_):
        raise OSError(errno.EROFS, "Read-only file system")

    folder = save_network("a")
    monkeypatch.setattr("tempfile.TemporaryFile", fail)
    monkeypatch.setattr("binaural.predict.__main__.read_input", pytest.fail)
    with pytest.raises(SystemExit) as error:
        predict(folder, output, wavs)
    assert "Read-only file system: name another folder with --output" in str(error.value.code)


def test_prediction_and_training_import_no_ray_caster():
    code = (
        "import sys; sys.modules.update(embreex=None, trimesh=None); import binaural.predict.__main__, train"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)


def test_inputs_that_cannot_be_meant_are_refused_before_anything_is_written(
    wavs, save_network, output, tmp_path
):
    folder = save_network("a")
    (tmp_path / "empty").mkdir()
    (tmp_path / "other").mkdir()
    shutil.copy(wavs / "a.wav", tmp_path / "other/a.wav")
    for inputs, message in (
        ([tmp_path / "none.wav"], "no such file or folder"),
        ([tmp_path / "empty"], "no .wav file in this folder"),
        ([wavs, tmp_path / "other"], "would write files of one name"),
    ):
        with pytest.raises(SystemExit) as error:
            predict(folder, output, *inputs)
        assert message in str(error.value.code)
        assert not output.exists()


def test_a_full_disk_leaves_nothing_half_written(wavs, save_network, output, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = save_network("a")
    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(SystemExit) as error:
        predict(folder, output, wavs)
    assert "No space left" in str(error.value.code)
    assert not list(output.iterdir())


@pytest.mark.parametrize("preprocessing", ["default", "official"])
def test_a_network_of_version_1_hears_wav_files_too(wavs, save_network, output, preprocessing):
    folder = save_network("v1", dataset="batvisionv1", preprocessing=preprocessing)
    predict(folder, output, wavs / "a.wav", "--formats", "npy")
    assert np.load(output / "a.npy").shape == (32, 32)
