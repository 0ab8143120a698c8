"""How many samples a second one core loads: `python -m benchmarks.loader`.

On recordings of BatVision V2's size (20,000 frames of 24-bit stereo, depth maps of 720 × 1280), in random
order, augmented, collated to batches, in one process with one thread: decoded and transformed each time, from
the warm cache, and from the warm cache as waveforms, whose spectrograms are the device's work.
"""

import argparse
import csv
import tempfile
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import soundfile
import torch

from benchmarks.machine import describe_machine
from benchmarks.measure import Spread, interleave, ratio
from benchmarks.report import table, write_report
from binaural.data import BatVisionV2, CachedEchoes, Echoes
from binaural.training.batches import training_loader

FILES = 32
RECORDINGS = 2048  # the files over and over: as many as make a cache beyond the processor's own
BATCH = 32
ROWS = {
    "none": "decoded and transformed each time",
    "waveforms": "cached waveforms, spectrograms left to the device",
    "spectrograms": "cached spectrograms",
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loader", description=__doc__)
    parser.add_argument("--image_sizes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--rounds", type=int, default=9)
    options = parser.parse_args()
    machine = describe_machine()
    torch.set_num_threads(1)
    rows, data = [], {}
    for size in options.image_sizes:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write_recordings(root)
            counts = {name: RECORDINGS if name != "none" else 4 * BATCH for name in ROWS}
            functions = {name: make_pass(root, size, name, counts[name]) for name in ROWS}
            seconds = interleave(functions, options.rounds, warm_up=1)
        for name, described in ROWS.items():
            rate = Spread.of([counts[name] / s for s in seconds[name]])
            per_sample = {key: [s / counts[key] for s in values] for key, values in seconds.items()}
            gain = ratio(per_sample["none"], per_sample[name])
            rows.append([f"{size} x {size}", described, f"{rate:.0f}", f"{gain:.1f}"])
            data[f"{size}-{name}"] = {"samples_per_second": rate.p50, "gain": gain.p50}
            print(rows[-1], flush=True)
    header = ["size", "samples", "samples a second and core", "gain"]
    note = (
        f"Median (20th-80th percentile) of {options.rounds} rounds, batches of {BATCH}, one process, one "
        f"thread; {RECORDINGS} recordings, the cache in memory."
    )
    print(write_report("loader", machine, "Loading samples", [table(header, rows), note], {"results": data}))


def write_recordings(root: Path) -> None:
    """A training split in BatVision V2's layout, its files named again and again."""
    generator = np.random.default_rng(0)
    for kind in ("audio", "depth"):
        (root / "Hall" / kind).mkdir(parents=True)
    for index in range(FILES):
        sound = 0.1 * generator.standard_normal((20000, 2)) * np.exp(-np.arange(20000) / 4000)[:, None]
        soundfile.write(root / f"Hall/audio/{index}.wav", sound, 44100, subtype="PCM_24")
        np.save(root / f"Hall/depth/{index}.npy", generator.integers(0, 15000, (720, 1280), dtype=np.uint16))
    with open(root / "Hall/train.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(BatVisionV2.COLUMNS)
        for number in range(RECORDINGS):
            index = number % FILES
            writer.writerow(["Hall/audio", f"{index}.wav", "Hall/depth", f"{index}.npy"])


def make_pass(root: Path, size: int, name: str, count: int) -> Callable[[], None]:
    """Loads `count` samples in batches, as a training run does."""
    dataset = BatVisionV2(root, "train", image_size=size, augment=True)
    dataset.waveforms = name == "waveforms"
    echoes: Echoes = dataset if name == "none" else CachedEchoes(dataset, root / "cache", "train")
    loader, _ = training_loader(echoes, BATCH, seed=0, num_workers=0)
    return partial(_consume, loader, count // BATCH)


def _consume(loader: torch.utils.data.DataLoader, batches: int) -> None:
    for _ in islice(loader, batches):
        pass


if __name__ == "__main__":
    main()
