"""python -m binaural.predict: depth from recordings."""

import argparse
import io
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from binaural.atomic_files import write_atomically
from binaural.checkpoint import load_checkpoint
from binaural.command_line import errors_in_one_line, positive_int
from binaural.device import choose_device
from binaural.evaluate import predict
from binaural.pictures.depth_map import draw_depth
from binaural.predict.point_cloud import to_ply
from binaural.predict.recordings import find_recordings, read_input

FORMATS = ("npy", "png", "ply")

DESCRIPTION = """\
Depth from stereo WAV recordings (left ear, right ear), 8 to 384 kHz. NAME.wav becomes, in --output:

  NAME.npy   float32 [S, S], metres along the viewing axis; rows from the top, columns from the left
  NAME.png   the same in colour, with a scale
  NAME.ply   a point cloud in metres (axes forward, left, up), through a pinhole camera 90 degrees wide and
             58.7 degrees high, as in the data sets

A recording must begin like the training data: in BatVision V2 and simulated rooms the chirp arrives at the
ears after 6.1 ms. Recordings with a silent ear, clipping or a chirp at another time are predicted with a
warning. Files that cannot be used are named, the others are predicted, and the exit status is then 1.
"""

EPILOG = """\
examples:
  python -m binaural.predict runs/simulated-binaural/best echo.wav
  python -m binaural.predict runs/simulated-binaural/best data/simulated/Simulated/audio --output depth
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m binaural.predict",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="folder of a trained network: a run, or its best or last")
    parser.add_argument("recordings", nargs="+", type=Path, help="WAV files, or folders of them")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("predictions"),
        metavar="FOLDER",
        help="created if it does not exist (default: %(default)s)",
    )
    parser.add_argument(
        "--formats", nargs="+", choices=FORMATS, default=list(FORMATS), help="default: npy png ply"
    )
    parser.add_argument("--batch_size", type=positive_int, default=16, help="default: %(default)s")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    with errors_in_one_line("binaural.predict", "stopped; what is written is whole"):
        refused = run(options)
    if refused:
        sys.exit(f"binaural.predict: {refused} of the recordings could not be used")


def run(options: argparse.Namespace) -> int:
    """Predict all that can be; returns how many recordings could not."""
    device = choose_device(options.device)
    checkpoint = load_checkpoint(options.checkpoint, device)
    if checkpoint.input.sees:
        raise ValueError(f"{checkpoint.name}: its input is the camera's picture, expected recordings")
    recordings = list(find_recordings(options.recordings).items())
    options.output.mkdir(parents=True, exist_ok=True)
    check_writable(options.output)
    seconds = {"reading": 0.0, "network": 0.0, "writing": 0.0}
    predicted = 0
    # disable=None: no bar where the output is not a terminal.
    bar = tqdm(total=len(recordings), desc="predicting", unit="recording", disable=None)
    for start in range(0, len(recordings), options.batch_size):
        clock = time.perf_counter()
        names, inputs = [], []
        for name, path in recordings[start : start + options.batch_size]:
            try:
                network_input, faults = read_input(path, checkpoint.input)
            except (ValueError, OSError) as error:
                bar.write(f"binaural.predict: {error}", file=sys.stderr)
                bar.update()
                continue
            inputs.append(network_input)
            names.append(name)
            for fault in faults:
                bar.write(f"binaural.predict: warning: {path}: {fault}", file=sys.stderr)
        seconds["reading"] += time.perf_counter() - clock
        if not names:
            continue
        clock = time.perf_counter()
        # Recordings may differ in length; inputs do not.
        depths = predict(checkpoint.network, torch.stack(inputs), device=device).cpu().numpy()
        seconds["network"] += time.perf_counter() - clock
        clock = time.perf_counter()
        for name, depth in zip(names, depths[:, 0], strict=True):
            write(options.output / name, depth, options.formats)
        seconds["writing"] += time.perf_counter() - clock
        predicted += len(names)
        bar.update(len(names))
    bar.close()
    if predicted:
        each = ", ".join(f"{what} {1000 * spent / predicted:.1f} ms" for what, spent in seconds.items())
        print(f"{predicted} recordings in {sum(seconds.values()):.2f} s on {device}; of each: {each}")
        print(f"see {options.output}")
    return len(recordings) - predicted


def check_writable(folder: Path) -> None:
    """Raise OSError, before any work, where no file can be created in `folder`."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OSError(
            error.errno, f"{error.strerror}: name another folder with --output", str(folder)
        ) from error


def write(stem: Path, depth: NDArray[np.float32], formats: list[str]) -> None:
    """`stem`.npy, .png and .ply of a depth map [S, S], metres; each whole or not at all."""
    # Not with_suffix: a name may have dots in it.
    paths = {kind: stem.with_name(f"{stem.name}.{kind}") for kind in FORMATS}
    farthest = max(float(depth.max()), 1e-3)
    if "npy" in formats:
        content = io.BytesIO()
        np.save(content, depth, allow_pickle=False)
        write_atomically(paths["npy"], content.getvalue())
    if "png" in formats:
        draw_depth(paths["png"], depth, stem.name, farthest)
    if "ply" in formats:
        write_atomically(paths["ply"], to_ply(depth, farthest))


if __name__ == "__main__":
    main()
