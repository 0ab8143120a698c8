"""WAV headers of recorders that were piped or killed, or that claim more than there is."""

import struct

import numpy as np
import pytest

from binaural.data.files import read_wav

SAMPLES = (np.random.default_rng(0).integers(-9999, 9999, (800, 2))).astype("<i2")
SIZE = SAMPLES.nbytes


def wav(riff: int, data: int, *, rate: int = 44100, content: bytes = SAMPLES.tobytes()) -> bytes:
    return (
        b"RIFF"
        + struct.pack("<I", riff)
        + b"WAVEfmt "
        + struct.pack("<IHHIIHH", 16, 1, 2, rate, 4 * rate, 4, 16)
        + b"data"
        + struct.pack("<I", data)
        + content
    )


@pytest.mark.parametrize(
    ("riff", "data"),
    [
        (36 + SIZE, SIZE),
        (0xFFFFFFFF, 0xFFFFFFFF),  # ffmpeg
        (0x7FFFF024, 0x7FFFF000),  # sox
        (0x7FFFFF24, 0x7FFFFF00),  # arecord, piped
        (0x80000024, 0x80000000),  # arecord, killed
        (0, 0),
        (36 + SIZE, 0),
        (0, SIZE),
        (0xFFFFFFFF, 0),  # GStreamer
    ],
)
def test_unfinished_headers_are_read_to_the_end(tmp_path, riff, data):
    path = tmp_path / "echo.wav"
    path.write_bytes(wav(riff, data))
    waveform, rate = read_wav(path, None)
    assert rate == 44100
    np.testing.assert_array_equal(waveform.numpy(), SAMPLES.T / np.float32(2**15))


def test_a_lost_end_is_refused_wherever_the_header_tells(tmp_path):
    path = tmp_path / "echo.wav"
    for riff in (36 + SIZE, 0, 0xFFFFFFFF):
        path.write_bytes(wav(riff, SIZE)[:-100])
        with pytest.raises(ValueError, match=r"echo\.wav: truncated, 3144 bytes .* promises 3244"):
            read_wav(path, None)


def test_metadata_behind_no_samples_is_not_sound(tmp_path):
    path = tmp_path / "echo.wav"
    path.write_bytes(wav(36 + 12, 0, content=b"LIST" + struct.pack("<I", 4) + b"INFO"))
    with pytest.raises(ValueError, match=r"echo\.wav: no frames"):
        read_wav(path, None)


@pytest.mark.parametrize("rate", [0, 1, 7999, 384001, 2**31 - 1])
def test_impossible_sample_rates_are_refused_by_name(tmp_path, rate):
    path = tmp_path / "echo.wav"
    content = bytearray(wav(36 + SIZE, SIZE))
    content[24:28] = struct.pack("<I", rate)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"echo\.wav: (sample rate|not a readable WAV)"):
        read_wav(path, 100)
