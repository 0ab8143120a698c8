"""Bad files: every error names the file and says what was expected."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile

from binaural.data import BatVisionV1, BatVisionV2
from binaural.data.depth import read_depth
from binaural.data.files import read_table, read_wav


class Bomb:
    """Loading this would run code."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was executed",))


def test_missing_folder_and_files(tmp_path, v2_root, v1_root):
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        BatVisionV2(tmp_path / "nowhere", "train")
    with pytest.raises(FileNotFoundError, match=r"no <location>/val\.csv"):
        BatVisionV2(v2_root, "val")
    with pytest.raises(FileNotFoundError, match=r"this looks like one location, or BatVision V1"):
        BatVisionV2(v2_root / "Attic", "train")
    with pytest.raises(FileNotFoundError, match=r"val\.csv"):
        BatVisionV1(v1_root, "val")
    (v2_root / "Attic/audio/audio_1.wav").unlink()
    (v2_root / "Attic/depth/depth_2.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"audio_1\.wav: no such file.*2 files are missing"):
        BatVisionV2(v2_root, "train")
    assert len(BatVisionV2(v2_root, "train", locations=["Hall"])) == 2


def test_missing_at_run_time(v2_root):
    data = BatVisionV2(v2_root, "train", image_size=32)
    (v2_root / "Attic/audio/audio_0.wav").unlink()
    (v2_root / "Attic/depth/depth_1.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"audio_0\.wav"):
        data[0]
    with pytest.raises(FileNotFoundError, match=r"depth_1\.npy"):
        data[1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", r"train\.csv: empty, expected a CSV header"),
        (lambda text: text.split("\n")[0], r"train\.csv: no rows"),
        (lambda text: text.replace("audio file name", "wav"), r"train\.csv: no column \['audio file name'\]"),
        (
            lambda text: text.rstrip().rsplit(",", 2)[0] + "\n",
            r"train\.csv, line 4: no value in .*depth path",
        ),
    ],
    ids=["empty", "header only", "column", "short row"],
)
def test_malformed_csv(v2_root, edit_csv, change, message):
    edit_csv(v2_root / "Attic/train.csv", change)
    with pytest.raises(ValueError, match=message):
        BatVisionV2(v2_root, "train")


def test_binary_csv_and_byte_order_mark(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("\ufeffdepth path\r\ndepth/1.npy\r\n", encoding="utf-8")
    assert read_table(path, ["depth path"]) == [{"depth path": "depth/1.npy"}]
    path.write_bytes(bytes(range(255, 0, -1)))
    with pytest.raises(ValueError, match=r"train\.csv: not a CSV text file"):
        read_table(path, ["depth path"])


def test_rows_without_a_value_are_skipped(v2_root, edit_csv):
    edit_csv(v2_root / "Attic/train.csv", lambda text: text + 2 * ("," * 11 + "\n"))
    assert len(BatVisionV2(v2_root, "train", locations=["Attic"])) == 3


def test_windows_separators(v2_root, edit_csv):
    edit_csv(v2_root / "Attic/train.csv", lambda text: text.replace("Attic/audio/", "Attic\\audio\\"))
    recordings = BatVisionV2(v2_root, "train").recordings
    assert recordings[0].audio == (v2_root / "Attic/audio/audio_0.wav",)


def test_absolute_paths_in_the_folder_become_relative(v2_root, edit_csv, tmp_path, monkeypatch):
    edit_csv(v2_root / "Attic/train.csv", lambda text: text.replace("Attic/", f"{v2_root.resolve()}/Attic/"))
    (tmp_path / "link").symlink_to(v2_root)
    monkeypatch.chdir(tmp_path)
    for root in (v2_root, tmp_path / "link", Path("link"), Path(v2_root.name)):
        data = BatVisionV2(root, "train", blacklist=["Attic/audio/audio_1.wav"])
        assert [r.audio[0].relative_to(root).as_posix() for r in data.recordings] == [
            "Attic/audio/audio_0.wav",
            "Attic/audio/audio_2.wav",
            "Hall/audio/audio_0.wav",
            "Hall/audio/audio_1.wav",
        ]


def test_absolute_paths_elsewhere_are_read_with_a_warning(v2_root, edit_csv, tmp_path):
    (tmp_path / "disk").mkdir()
    (v2_root / "Attic/audio/audio_0.wav").rename(tmp_path / "disk/audio_0.wav")
    edit_csv(
        v2_root / "Attic/train.csv",
        lambda text: text.replace("Attic/audio/,audio_0", f"{tmp_path}/disk/,audio_0"),
    )
    with pytest.warns(UserWarning, match=r"1 files .* lie outside this folder, the first .*audio_0\.wav"):
        data = BatVisionV2(v2_root, "train", max_depth=10, image_size=32)
    assert data[0][0].shape == (2, 32, 32)


def test_relative_paths_must_stay_in_the_folder(v2_root, v1_root, edit_csv):
    edit_csv(
        v2_root / "Attic/train.csv", lambda text: text.replace("Attic/audio/", "Attic/../../Attic/audio/")
    )
    with pytest.raises(ValueError, match=r"train\.csv: .* lies outside the data folder"):
        BatVisionV2(v2_root, "train")
    edit_csv(v1_root / "train.csv", lambda text: text.replace("audio/left_1", "../left_1"))
    with pytest.raises(ValueError, match=r"train\.csv: \.\./left_1\.npy lies outside"):
        BatVisionV1(v1_root, "train")


def test_v1_csv_names_the_missing_column(v1_root, edit_csv):
    edit_csv(v1_root / "train.csv", lambda text: text.replace("audio path right", "right"))
    with pytest.raises(ValueError, match=r"no column \['audio path right'\], expected .*found"):
        BatVisionV1(v1_root, "train")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "dev"}, "split must be one of .*got 'dev'"),
        ({"max_depth": 0}, "max_depth must be positive metres, got 0"),
        ({"max_depth": float("nan")}, "max_depth"),
        ({"image_size": 0}, "image_size must be positive, got 0"),
        ({"preprocessing": "mel"}, "preprocessing must be .*got 'mel'"),
    ],
)
def test_wrong_options(v2_root, v1_root, options, message):
    for dataset, root in ((BatVisionV2, v2_root), (BatVisionV1, v1_root)):
        with pytest.raises(ValueError, match=message):
            dataset(root, **{"split": "train", **options})


def write_wav(path: Path, frames: int = 20000, channels: int = 2, **options) -> None:
    soundfile.write(path, np.full((frames, channels), 0.1, np.float32), 44100, **options)


def test_unusable_wav(tmp_path):
    path = tmp_path / "echo.wav"
    write_wav(path, channels=1)
    with pytest.raises(ValueError, match=r"echo\.wav: 1 channel\(s\), expected 2"):
        read_wav(path, 100)
    write_wav(path, channels=4)
    with pytest.raises(ValueError, match=r"echo\.wav: 4 channel"):
        read_wav(path, 100)
    write_wav(path)
    path.write_bytes(path.read_bytes()[:30000])
    with pytest.raises(
        ValueError, match=r"echo\.wav: truncated, 30000 bytes where its header promises 80044"
    ):
        read_wav(path, 100)
    write_wav(path, frames=0)
    with pytest.raises(ValueError, match=r"echo\.wav: no frames"):
        read_wav(path, 100)
    for content in (b"", b"RIFF", b"not a recording at all, but text"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"echo\.wav: not a readable WAV"):
            read_wav(path, 100)
    audio = np.zeros((1000, 2), np.float32)
    audio[7, 1], audio[9, 0] = np.nan, np.inf
    soundfile.write(path, audio, 44100, subtype="FLOAT")
    with pytest.raises(ValueError, match=r"echo\.wav: 2 samples are NaN or infinite"):
        read_wav(path, 1000)


def test_floats_that_are_integers_values_are_refused(tmp_path):
    path = tmp_path / "echo.wav"
    audio = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)
    for values in (np.rint(3 * audio), 1000 * audio):
        soundfile.write(path, values, 44100, subtype="FLOAT")
        with pytest.raises(ValueError, match=r"echo\.wav: floating samples up to .* full scale at 1"):
            read_wav(path, 1000)
    soundfile.write(path, audio, 44100, subtype="DOUBLE")  # peaks above full scale are not integers
    np.testing.assert_array_equal(read_wav(path, None)[0].numpy(), audio.T)


@pytest.mark.parametrize("frames", [1, 16, 64, 256])
def test_recordings_shorter_than_a_window_of_the_official_preprocessing(v2_root, v1_root, frames):
    write_wav(v2_root / "Attic/audio/audio_0.wav", frames=frames)
    data = BatVisionV2(v2_root, "train", max_depth=10, preprocessing="official")
    with pytest.raises(
        ValueError, match=rf"audio_0\.wav: {frames} samples at 44.1 kHz, expected at least 257"
    ):
        data[0]
    for ear in ("left", "right"):
        np.save(v1_root / f"audio/{ear}_0.npy", np.ones(frames, np.float32))
    with pytest.raises(ValueError, match=rf"left_0\.npy: {frames} samples"):
        BatVisionV1(v1_root, "train", preprocessing="official")[0]
    with pytest.raises(ValueError, match=r"max_depth=0\.5: 129 samples, expected at least 257"):
        BatVisionV2(v2_root, "train", max_depth=0.5, preprocessing="official")


def test_recording_shorter_than_the_echo(v2_root):
    write_wav(v2_root / "Attic/audio/audio_0.wav", frames=2000)
    with pytest.raises(ValueError, match=r"audio_0\.wav: 2000 frames at 44.1 kHz, expected at least 2841"):
        BatVisionV2(v2_root, "train", max_depth=10)[0]


def test_pickles_are_refused_unread(tmp_path, v1_root):
    path = tmp_path / "depth.npy"
    refused = r"depth\.npy: not a readable \.npy array .*pickled objects are refused"
    np.save(path, np.array([[Bomb()]], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=refused):
        read_depth(path, max_depth=10, image_size=4, interpolation="nearest")
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ValueError, match=refused):
        read_depth(path, max_depth=10, image_size=4, interpolation="nearest")
    np.save(v1_root / "audio/left_0.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"left_0\.npy: not a readable"):
        BatVisionV1(v1_root, "train")[0]


def test_truncated_and_archived_arrays(tmp_path):
    path = tmp_path / "depth.npy"
    read = lambda: read_depth(path, max_depth=10, image_size=4, interpolation="nearest")  # noqa: E731
    np.save(path, np.ones((40, 50), np.uint16))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"depth\.npy: not a readable"):
        read()
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"depth\.npy: not a readable"):
        read()
    with open(path, "wb") as file:
        np.savez(file, depth=np.ones((4, 5)))
    with pytest.raises(ValueError, match=r"depth\.npy: not a readable .*an archive of arrays"):
        read()


def test_unusable_ears(v1_root):
    left = v1_root / "audio/left_0.npy"
    data = BatVisionV1(v1_root, "train", image_size=32)
    audio = np.load(left)
    np.save(left, audio[None])
    with pytest.raises(ValueError, match=r"left_0\.npy: shape \(1, 4000\), expected the samples of one ear"):
        data[0]
    np.save(left, audio[:3000])
    with pytest.raises(ValueError, match=r"left_0\.npy has 3000 samples and .*right_0\.npy has 4000"):
        data[0]
    np.save(v1_root / "audio/right_0.npy", audio[:3000])
    with pytest.raises(ValueError, match=r"left_0\.npy: 3000 samples, expected 3616"):
        data[0]
    audio[5] = np.nan
    np.save(left, audio)
    with pytest.raises(ValueError, match=r"left_0\.npy: 1 samples are NaN"):
        data[0]
    with pytest.raises(ValueError, match=r"crop must be \(start, stop\)"):
        BatVisionV1(v1_root, "train", crop=(200, 100))
