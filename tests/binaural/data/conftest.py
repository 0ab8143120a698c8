"""Small data sets in the layouts of BatVision, written on the fly."""

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

V2_HEADER = [
    "index",
    "time",
    "left audio time",
    "right audio time",
    "audio path",
    "audio file name",
    "camera time",
    "camera path",
    "camera file name",
    "depth time",
    "depth path",
    "depth file name",
]
V1_HEADER = ["camera path left", "depth path", "audio path left", "audio path right"]


def write_csv(path: Path, header: list[str], rows: list[dict[str, object]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, header, restval="0")
        writer.writeheader()
        writer.writerows(rows)


def make_audio(seed: int, frames: int = 20000) -> np.ndarray:
    """Decaying noise [frames, 2], the right ear quieter than the left."""
    noise = np.random.default_rng(seed).standard_normal((frames, 2))
    return (0.1 * noise * np.exp(-np.arange(frames) / 4000)[:, None] * [1.0, 0.5]).astype(np.float32)


def make_depth(seed: int, shape: tuple[int, int] = (90, 160)) -> np.ndarray:
    """Depth in millimetres with a fifth of the pixels invalid."""
    rng = np.random.default_rng(seed)
    depth = rng.integers(300, 15000, shape, dtype=np.uint16)
    depth[rng.random(shape) < 0.2] = 0
    return depth


def write_v2(root: Path, locations: dict[str, int], split: str = "train") -> Path:
    """A V2 data set with the given number of recordings in each location's split."""
    for number, (location, count) in enumerate(locations.items()):
        folder = root / location
        for name in ("audio", "depth"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        rows: list[dict[str, object]] = []
        for i in range(count):
            seed = 100 * number + i
            soundfile.write(folder / f"audio/audio_{i}.wav", make_audio(seed), 44100, subtype="PCM_24")
            np.save(folder / f"depth/depth_{i}.npy", make_depth(seed))
            rows.append(
                {
                    "index": i,
                    "audio path": f"{location}/audio/",
                    "audio file name": f"audio_{i}.wav",
                    "depth path": f"{location}/depth/",
                    "depth file name": f"depth_{i}.npy",
                }
            )
        write_csv(folder / f"{split}.csv", V2_HEADER, rows)
    return root


def write_v1(root: Path, count: int, split: str = "train", frames: int = 4000) -> Path:
    """A V1 data set with all sorts of invalid depth."""
    for name in ("audio", "depth"):
        (root / name).mkdir(parents=True)
    rows: list[dict[str, object]] = []
    for i in range(count):
        left, right = make_audio(i, frames).T
        np.save(root / f"audio/left_{i}.npy", left)
        np.save(root / f"audio/right_{i}.npy", right)
        depth = make_depth(i, (60, 80)).astype(np.float32)
        depth[0, 0], depth[1, :20], depth[2, :20], depth[3, :20] = np.nan, np.inf, -np.inf, -50
        np.save(root / f"depth/depth_{i}.npy", depth)
        rows.append(
            {
                "depth path": f"depth/depth_{i}.npy",
                "audio path left": f"audio/left_{i}.npy",
                "audio path right": f"audio/right_{i}.npy",
            }
        )
    write_csv(root / f"{split}.csv", V1_HEADER, rows)
    return root


@pytest.fixture
def make_v2(tmp_path: Path) -> Callable[[dict[str, int]], Path]:
    """Write a V2 data set of so many recordings in each location."""
    return lambda locations: write_v2(tmp_path / "v2", locations)


@pytest.fixture
def v2_root(make_v2: Callable[[dict[str, int]], Path]) -> Path:
    return make_v2({"Attic": 3, "Hall": 2})


@pytest.fixture
def v1_root(tmp_path: Path) -> Path:
    return write_v1(tmp_path / "v1", 2)


@pytest.fixture
def edit_csv() -> Callable[[Path, Callable[[str], str]], None]:
    """Rewrite the text of a CSV file."""

    def edit(path: Path, change: Callable[[str], str]) -> None:
        path.write_text(change(path.read_text()))

    return edit
