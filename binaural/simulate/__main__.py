"""python -m binaural.simulate: write a data set of simulated rooms, or compare one with real recordings."""

from __future__ import annotations

import argparse
import inspect
import signal
import sys
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from types import FrameType

from binaural.simulate.dataset import simulate_dataset

DESCRIPTION = """\
Simulate the recordings, depth maps and pictures of a binaural rig in rooms, and write them in BatVision V2's
layout (<root>/Simulated/{train,val,test}.csv, audio/, camera/, depth/).

Each recording is made in a room of its own, 3 to 12 m wide and furnished at random: a 3 ms sweep, its
echoes at the ears of a dummy head (mirror and diffuse reflections, reverberation, noise), and the depth map
and picture of a camera beside them, with the gaps that a real depth camera leaves.

The same options give the same bytes on one machine, however many workers share the work. It may be stopped
at any moment: the same command continues, and <root> appears when it is complete.
"""

EPILOG = """\
examples:
  python -m binaural.simulate                              1,900 rooms in data/simulated
  python -m binaural.simulate data/more --rooms_train 8000 --seed 1
  python -m binaural.simulate data/flat --mesh scan.glb    places in your own scan, in metres
  python -m binaural.simulate --report report.png --real BatVisionV2
                                                           simulated beside real recordings
"""


def parser() -> argparse.ArgumentParser:
    default = {name: p.default for name, p in inspect.signature(simulate_dataset).parameters.items()}
    parser = argparse.ArgumentParser(
        prog="python -m binaural.simulate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "root",
        type=Path,
        nargs="?",
        default=Path("data/simulated"),
        help="folder of the data set (default: data/simulated)",
    )
    content = parser.add_argument_group("content")
    for split in ("train", "val", "test"):
        content.add_argument(
            f"--rooms_{split}",
            type=int,
            default=default[f"rooms_{split}"],
            metavar="N",
            help=f"rooms, and so recordings, in the {split} split (default: %(default)s)",
        )
    content.add_argument(
        "--seed", type=int, default=default["seed"], help="which rooms (default: %(default)s)"
    )
    content.add_argument(
        "--depth_width",
        type=int,
        default=default["depth_width"],
        metavar="PIXELS",
        help="width of depth map and picture at 16:9, a multiple of 16; 1280 is the real camera's and takes "
        "1.8 MB a recording (default: %(default)s)",
    )
    content.add_argument(
        "--mesh",
        type=Path,
        help="simulate in this place instead of random rooms: a mesh in metres that trimesh can read (.glb "
        "and .gltf y-up, others z-up); the splits are then different places in it",
    )
    work = parser.add_argument_group("work")
    work.add_argument("--workers", type=int, metavar="N", help="processes (default: one per core)")
    work.add_argument("--no_progress", action="store_true", help="show no progress bar")
    report = parser.add_argument_group("report")
    report.add_argument(
        "--report",
        type=Path,
        metavar="PNG",
        help="draw recordings of the data set beside a real one: onset, envelope, spectrum, interaural "
        "correlation, depth (needs --real; simulates first what is missing)",
    )
    report.add_argument(
        "--real", type=Path, metavar="DIR", help="a BatVision V2 folder; its first test recording is drawn"
    )
    return parser


def _stop(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def main(argv: list[str] | None = None) -> int:
    options = parser().parse_args(argv)
    previous = signal.signal(signal.SIGTERM, _stop)  # as an exception, so that the workers are ended too
    try:
        return run(options)
    finally:
        signal.signal(signal.SIGTERM, previous or signal.SIG_DFL)


def run(options: argparse.Namespace) -> int:
    """Simulate, and draw the report that was asked for; returns the exit status."""
    try:
        if (options.report is None) != (options.real is None):
            raise ValueError("--report and --real: give both or neither")
        if options.report is not None:
            # Only here, because drawing is slow to import.
            from binaural.simulate.realism import check_report, draw_report

            check_report(options.real, options.report)
        root = simulate_dataset(
            options.root,
            rooms_train=options.rooms_train,
            rooms_val=options.rooms_val,
            rooms_test=options.rooms_test,
            seed=options.seed,
            depth_width=options.depth_width,
            workers=options.workers,
            mesh=options.mesh,
            progress=not options.no_progress,
        )
        if options.report is not None:
            draw_report(root, options.real, options.report)
    except BrokenProcessPool:
        print(
            "error: a worker process was killed, for lack of memory for instance; the same command, "
            "with fewer --workers, continues from here",
            file=sys.stderr,
        )
        return 2
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped; the same command continues from here", file=sys.stderr)
        return 130
    print(options.report or root)
    return 0


if __name__ == "__main__":
    sys.exit(main())
