"""Samples from the cache: the same as without, made once, made anew when anything changed."""

import errno
import os
import pickle
import re
from multiprocessing import get_context

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from torch.utils.data import DataLoader

from binaural.data import BatVisionV1, BatVisionV2, CachedEchoes, cache_file

SMALL = {"max_depth": 10, "image_size": 32}


def open_v2(root, **options):
    return BatVisionV2(root, "train", **{**SMALL, **options})


@pytest.mark.parametrize("preprocessing", ["default", "official"])
@pytest.mark.parametrize("version", [1, 2])
def test_samples_are_those_of_the_data_set(v1_root, v2_root, tmp_path, preprocessing, version):
    kind, root = {1: (BatVisionV1, v1_root), 2: (BatVisionV2, v2_root)}[version]
    data = kind(root, "train", **SMALL, preprocessing=preprocessing)
    cached = CachedEchoes(data, tmp_path, "train")
    assert len(cached) == len(data)
    for index in range(len(data)):
        assert all(map(torch.equal, cached[index], data[index]))
    for depth, expected in zip(cached.depths(), data.depths(), strict=True):
        assert torch.equal(depth, expected)


@pytest.mark.parametrize(
    ("waveforms", "options"),
    [
        (True, {}),
        (False, {"features": ["ipd", "gcc_phat"]}),
        (False, {"features": ["gcc_phat"], "camera": True}),
        (False, {"features": ["camera"]}),
    ],
)
def test_what_is_no_spectrogram_is_varied_as_without_the_cache(v2_root, tmp_path, waveforms, options):
    for location, count in (("Attic", 3), ("Hall", 2)):
        (v2_root / location / "camera").mkdir()
        for index in range(count):
            noise = np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(noise).save(v2_root / location / f"camera/{index}.png")
        table = v2_root / location / "train.csv"
        header, *rows = table.read_text().splitlines()
        path, name = header.split(",").index("camera path"), header.split(",").index("camera file name")
        for index, row in enumerate(rows):
            cells = row.split(",")
            cells[path], cells[name] = f"{location}/camera", f"{index}.png"
            rows[index] = ",".join(cells)
        table.write_text("\n".join([header, *rows]))
    data = open_v2(v2_root, augment=True, **options)
    data.waveforms = waveforms
    cached = CachedEchoes(data, tmp_path, "train")
    for index in range(len(data)):
        torch.manual_seed(index)
        expected = data[index]
        torch.manual_seed(index)
        assert all(map(torch.equal, cached[index], expected))


def test_random_variation_follows_the_seed(v2_root, tmp_path):
    cached = CachedEchoes(open_v2(v2_root, augment=True), tmp_path, "train")

    def draw(seed):
        torch.manual_seed(seed)
        return cached[0][0]

    assert torch.equal(draw(0), draw(0))
    assert not torch.equal(draw(0), draw(1))


def test_gain_and_mirror_are_exact(v2_root, tmp_path, monkeypatch):
    monkeypatch.setattr("binaural.data.augmentation.NOISE_DB", (-300.0, -300.0))
    data = open_v2(v2_root, augment=True)
    cached = CachedEchoes(data, tmp_path, "train")
    for seed in range(6):
        torch.manual_seed(seed)
        expected = data[1]
        torch.manual_seed(seed)
        found = cached[1]
        torch.testing.assert_close(found[0], expected[0], atol=3e-4, rtol=0)
        assert torch.equal(found[1], expected[1])


def test_made_once(v2_root, tmp_path, monkeypatch):
    CachedEchoes(open_v2(v2_root), tmp_path, "train")
    monkeypatch.setattr("binaural.data.cached_dataset.build_cache", None)
    CachedEchoes(open_v2(v2_root), tmp_path, "train")
    assert sorted(path.name for path in tmp_path.glob("train*")) == [
        "train-input.safetensors",
        "train-input.safetensors.lock",
    ]


@pytest.mark.filterwarnings("ignore:.*further ones are counted")
@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize(
    "options",
    [{}, {"augment": True}, {"augment": True, "features": ["ipd"]}],
    ids=["input", "cells", "waveform"],
)
def test_what_was_met_is_said_each_time(v2_root, tmp_path, options, num_workers):
    np.save(v2_root / "Attic/depth/depth_2.npy", np.zeros((90, 160), np.uint16))
    audio, _ = soundfile.read(v2_root / "Hall/audio/audio_0.wav")
    soundfile.write(v2_root / "Hall/audio/audio_0.wav", np.repeat(audio, 2, axis=0), 88200)
    for _ in ("when it is made", "when it is there"):
        cached = CachedEchoes(open_v2(v2_root, **options), tmp_path, "train", num_workers)
        assert cached.dataset.unmeasured == [v2_root / "Attic/depth/depth_2.npy"]
        assert cached.dataset.resampled == [v2_root / "Hall/audio/audio_0.wav"]
    cached.dataset.met.zero_()
    assert len(pickle.loads(pickle.dumps(cached)).dataset.remarks()) == 2


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ({"features": ["ipd"]}, "features magnitude, not ipd"),
        ({"image_size": 16}, "image_size 32, not 16"),
        ({"max_depth": 9}, "max_depth 10.0, not 9.0"),
        ({"preprocessing": "official"}, "preprocessing default, not official"),
        ({"locations": ["Hall"]}, r"recordings 5 \(.*\), not 2 \("),
    ],
)
def test_other_preprocessing_makes_it_anew_and_says_so(v2_root, tmp_path, capsys, options, difference):
    CachedEchoes(open_v2(v2_root), tmp_path, "train")
    before = capsys.readouterr().out
    assert before == ""
    data = open_v2(v2_root, **options)
    cached = CachedEchoes(data, tmp_path, "train")
    out = capsys.readouterr().out
    assert "making it anew" in out
    assert out.count("\n") == 1
    assert re.search(difference, out)
    assert torch.equal(cached[0][0], data[0][0])


def test_a_changed_recording_makes_it_anew(v2_root, tmp_path, capsys):
    CachedEchoes(open_v2(v2_root), tmp_path, "train")
    path = v2_root / "Hall/audio/audio_1.wav"
    sound, rate = soundfile.read(path)
    soundfile.write(path, 0.5 * sound, rate, subtype="PCM_24")  # as long as before, written later
    data = open_v2(v2_root)
    cached = CachedEchoes(data, tmp_path, "train")
    assert "making it anew" in capsys.readouterr().out
    assert torch.equal(cached[4][0], data[4][0])


@pytest.mark.parametrize("spoil", [b"", b"no header here", b"\xff" * 100, "cut"])
def test_a_spoilt_file_is_made_anew(v2_root, tmp_path, capsys, spoil):
    CachedEchoes(open_v2(v2_root), tmp_path, "train")
    path = tmp_path / "train-input.safetensors"
    path.write_bytes(path.read_bytes()[:-1] if spoil == "cut" else spoil)
    cached = CachedEchoes(open_v2(v2_root), tmp_path, "train")
    assert "not a cache" in capsys.readouterr().out
    assert cached[0][0].shape == (2, 32, 32)


def test_a_broken_recording_is_named_and_nothing_is_left(v2_root, tmp_path):
    np.save(v2_root / "Hall/depth/depth_1.npy", np.zeros(3, np.uint16))
    with pytest.raises(ValueError, match="depth_1.npy"):
        CachedEchoes(open_v2(v2_root), tmp_path, "train")
    assert not list(tmp_path.glob("*.partial"))
    assert not (tmp_path / "train-input.safetensors").exists()


@pytest.mark.parametrize("where", ["reserving", "writing"])
def test_a_full_disk_keeps_what_was_there(v2_root, tmp_path, monkeypatch, where):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    CachedEchoes(open_v2(v2_root), tmp_path, "train")
    path = tmp_path / "train-input.safetensors"
    before = path.read_bytes()
    monkeypatch.setattr(cache_file.os, {"reserving": "posix_fallocate", "writing": "pwrite"}[where], full)
    with pytest.raises(OSError, match="No space left on device: cannot cache samples.*--no-cache"):
        CachedEchoes(open_v2(v2_root, image_size=16), tmp_path, "train")
    assert path.read_bytes() == before
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES])
def test_a_read_only_folder_names_the_options(v2_root, tmp_path, monkeypatch, number):
    def fail(self, *_, **__):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", fail)
    with pytest.raises(OSError, match="cannot cache samples; name another folder with --cache_dir.*cache"):
        CachedEchoes(open_v2(v2_root), tmp_path / "cache", "train")


def test_systems_that_cannot_reserve_space(v2_root, tmp_path, monkeypatch):
    monkeypatch.delattr(cache_file.os, "posix_fallocate", raising=False)
    assert len(CachedEchoes(open_v2(v2_root), tmp_path, "train")) == 5


def _build(root, folder, start, results):
    start.wait()
    results.put(CachedEchoes(open_v2(root), folder, "train")[3][0].sum().item())


@pytest.mark.slow
def test_several_processes_at_once(v2_root, tmp_path):
    context = get_context("spawn")
    start, results = context.Event(), context.Queue()
    processes = [context.Process(target=_build, args=(v2_root, tmp_path, start, results)) for _ in range(2)]
    for process in processes:
        process.start()
    start.set()
    sums = {results.get(timeout=240) for _ in processes}
    for process in processes:
        process.join()
    assert len(sums) == 1
    assert CachedEchoes(open_v2(v2_root), tmp_path, "train")[3][0].sum().item() in sums


@pytest.mark.slow
def test_a_pickled_one_maps_the_file_itself(v2_root, tmp_path):
    cached = CachedEchoes(open_v2(v2_root), tmp_path, "train")
    content = pickle.dumps(cached)
    assert len(content) < 20000  # without the samples
    assert torch.equal(pickle.loads(content)[2][0], cached[2][0])
    loader = DataLoader(cached, 5, num_workers=2, multiprocessing_context="spawn")
    assert torch.equal(next(iter(loader))[0][2], cached[2][0])
