"""Camera pictures beside the recordings."""

import csv
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from binaural.data import BatVisionV1, BatVisionV2
from binaural.data.camera import read_picture


@pytest.fixture
def pictured(v2_root):
    """The data set with a picture each: left half red, the row of pixels below the middle blue."""
    for folder in v2_root.iterdir():
        (folder / "camera").mkdir()
        table = folder / "train.csv"
        with open(table, newline="") as file:
            rows = list(csv.DictReader(file))
        for row in rows:
            picture = np.zeros((90, 160, 3), np.uint8)
            picture[:, :80, 0] = 255
            picture[45:, :, 2] = 255
            row["camera path"], row["camera file name"] = f"{folder.name}/camera/", f"c_{row['index']}.png"
            Image.fromarray(picture).save(folder / "camera" / row["camera file name"])
        with open(table, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0].keys())
            writer.writeheader()
            writer.writerows(rows)
    return v2_root


def test_pictures_come_third(pictured):
    heard, depth, picture = BatVisionV2(pictured, "train", image_size=64, camera=True)[1]
    assert (heard.shape, depth.shape, picture.shape) == ((2, 64, 64), (1, 64, 64), (3, 64, 64))
    assert picture.dtype == torch.float32
    assert torch.equal(picture[0, :, :32], torch.ones(64, 32))
    assert torch.equal(picture[0, :, 32:], torch.zeros(64, 32))
    assert picture[2, :31].max() == 0
    assert picture[2, 33:].min() == 1


def test_the_camera_as_a_networks_input(pictured):
    seen, depth = BatVisionV2(pictured, "train", image_size=64, features=["camera"])[0]
    assert (seen.shape, depth.shape) == ((3, 64, 64), (1, 64, 64))


def test_pictures_are_mirrored_with_the_room(pictured):
    plain = BatVisionV2(pictured, "train", image_size=64, camera=True)
    varied = BatVisionV2(pictured, "train", image_size=64, camera=True, augment=True)
    _, depth, picture = plain[0]
    mirrored = []
    for seed in range(8):
        torch.manual_seed(seed)
        _, other_depth, other_picture = varied[0]
        mirrored.append(not torch.equal(other_depth, depth))
        assert torch.equal(other_depth, depth.flip(-1) if mirrored[-1] else depth)
        assert torch.equal(other_picture, picture.flip(-1) if mirrored[-1] else picture)
    assert {True, False} == set(mirrored)


def test_a_missing_picture_is_named(pictured):
    (pictured / "Attic/camera/c_1.png").unlink()
    BatVisionV2(pictured, "train")
    with pytest.raises(FileNotFoundError, match=r"Attic/camera/c_1\.png: no such file"):
        BatVisionV2(pictured, "train", camera=True)


def test_a_broken_picture_is_named(pictured):
    (pictured / "Attic/camera/c_0.png").write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"c_0\.png: not a readable picture"):
        BatVisionV2(pictured, "train", camera=True)[0]


def png(width: int, height: int) -> bytes:
    """A PNG file that declares its size and holds no pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (png(100_000, 100_000), ""),
        (png(10_000, 10_000), "10000 x 10000 pixels, expected at most"),
        (png(0, 0), ""),
        (b"P6\n128 72J\n255\n" + bytes(128 * 72 * 3), ""),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "cannot identify"),
        (b"", ""),
    ],
    ids=["bomb", "large", "empty", "ppm", "postscript", "no bytes"],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_pictures_are_named(tmp_path, content, reason):
    path = tmp_path / "a.jpeg"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.jpeg: not a readable picture .*" + reason):
        read_picture(path, 32)


@pytest.mark.parametrize("options", [{"camera": True}, {"features": ["camera"]}])
def test_version_1_has_no_pictures(v1_root, options):
    with pytest.raises(ValueError, match="from BatVision V2 and simulated rooms, not from V1"):
        BatVisionV1(v1_root, "train", **options)
