import numpy as np
import pytest
import soundfile
from PIL import Image

from binaural.simulate import simulate_dataset
from binaural.simulate.__main__ import main
from binaural.simulate.realism import BANDS, LAGS, bands, envelope, gcc_phat

RATE = 44_100


def test_report_compares_with_a_real_recording(tmp_path, batvision_sample, capsys):
    size = {"rooms_train": 1, "rooms_val": 1, "rooms_test": 4, "depth_width": 32}
    simulate_dataset(tmp_path / "data", workers=1, progress=False, **size)
    arguments = [word for name, value in size.items() for word in (f"--{name}", str(value))]
    output = tmp_path / "new" / "report.png"
    assert (
        main([str(tmp_path / "data"), *arguments, "--report", str(output), "--real", str(batvision_sample)])
        == 0
    )
    with Image.open(output) as picture:
        assert picture.format == "PNG"
        assert np.asarray(picture.convert("L")).std() > 10
    table = capsys.readouterr().out
    missing = next(line for line in table.splitlines() if line.startswith("depth missing"))
    assert missing.split()[3] == "21.67"  # as the sample's own description states


def test_report_on_a_missing_data_set_names_it(tmp_path, capsys):
    options = [
        "--rooms_train",
        "1",
        "--rooms_val",
        "1",
        "--rooms_test",
        "1",
        "--workers",
        "1",
        "--no_progress",
    ]
    assert (
        main([str(tmp_path / "data"), *options, "--report", "r.png", "--real", str(tmp_path / "none")]) == 2
    )
    assert "none" in capsys.readouterr().err


@pytest.mark.parametrize("delay", [-20, 0, 13])
def test_gcc_phat_finds_the_delay_between_the_ears(delay):
    noise = np.random.default_rng(0).normal(size=20_000)
    correlation = gcc_phat(np.stack([noise, np.roll(noise, delay)]))
    assert np.argmax(correlation) - LAGS == delay


def test_envelope_and_bands_state_known_levels():
    time = np.arange(20_000) / RATE
    tone = np.tile(0.1 * np.sqrt(2) * np.sin(2 * np.pi * 1000 * time), (2, 1))
    assert envelope(tone)[5000] == pytest.approx(-20, abs=0.2)
    noise = np.random.default_rng(0).normal(size=(2, 20_000))
    density = bands(noise)  # variance 1 spread over half the sample rate
    assert density[BANDS > 1000].mean() == pytest.approx(10 * np.log10(2 / RATE), abs=0.5)
    assert np.argmax(bands(tone)) == np.argmin(np.abs(BANDS - 1000))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda audio, depth: np.save(depth, np.full((9, 16), 2.5, np.float32)), "are these metres"),
        (lambda audio, depth: np.save(depth, np.zeros((9, 16, 3), np.uint16)), "expected a depth map"),
        (
            lambda audio, depth: soundfile.write(audio, np.zeros((20_000, 2)), RATE),
            "both ears are silent, nothing to compare",
        ),
    ],
)
def test_files_that_the_loader_refuses_are_refused_before_anything_is_simulated(
    tmp_path, capsys, damage, message
):
    real = simulate_dataset(tmp_path / "real", 1, 1, 1, depth_width=32, workers=1, progress=False)
    folder = real / "Simulated"
    damage(folder / "audio/audio_2.wav", folder / "depth/depth_2.npy")
    options = ["--report", str(tmp_path / "r.png"), "--real", str(real)]
    assert main([str(tmp_path / "data"), *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert str(folder) in said
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["r.jpeg", "report", "folder.png"])
def test_a_report_that_cannot_be_written_is_refused_before_anything_is_simulated(tmp_path, capsys, name):
    (tmp_path / "folder.png").mkdir()
    options = ["--report", str(tmp_path / name), "--real", str(tmp_path / "none")]
    assert main([str(tmp_path / "data"), *options]) == 2
    assert "expected the name of a PNG file" in capsys.readouterr().err
    assert not (tmp_path / "data").exists()
