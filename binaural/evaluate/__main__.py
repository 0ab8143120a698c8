"""python -m binaural.evaluate: measure a trained network, or two on the same images."""

import argparse
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from binaural.atomic_files import write_atomically, write_json
from binaural.checkpoint import Checkpoint, load_checkpoint
from binaural.command_line import (
    add_data_options,
    choose_data,
    natural,
    not_negative,
    positive,
    positive_int,
)
from binaural.data.loading import evaluation_loader
from binaural.device import choose_device
from binaural.evaluate.intervals import Bootstrap
from binaural.evaluate.per_image import Measurements, measure
from binaural.evaluate.protocol import BANDS, EvaluationSet, Protocol
from binaural.evaluate.report_tables import comparison_table, images_csv, means_table, rows_table
from binaural.evaluate.summary import compare, summarise

DESCRIPTION = """\
Measure a trained network: RMSE, ABS_REL, log10, MAE and δ1 to δ3 of every image, their means with bootstrap
intervals, by location and by distance. The data set need not be the one trained on: the input is made as in
training, moved so that the chirp arrives when it did there, padded with silence where a recording ends early.

True depth beyond --max_depth (the network's own unless given) counts as that depth, as in training, or with
--beyond exclude not at all. All of this protocol is printed and saved.
"""

EPILOG = """\
examples:
  python -m binaural.evaluate runs/simulated-binaural/best
  python -m binaural.evaluate runs/simulated-binaural/best --controls
  python -m binaural.evaluate runs/simulated-binaural/best --compare runs/simulated-unet/best
  python -m binaural.evaluate runs/simulated-binaural/best --dataset batvisionv2 --dataset_dir BatvisionV2
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m binaural.evaluate",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", help="folder of a trained network, a run's best or last")
    parser.add_argument(
        "--compare", metavar="CHECKPOINT", help="a second network: differences on the same images"
    )
    parser.add_argument(
        "--controls",
        action="store_true",
        help="also with either ear muted, and with the ears swapped, which must mirror the prediction",
    )
    add_data_options(parser)
    protocol = parser.add_argument_group("protocol")
    protocol.add_argument(
        "--metric_threshold",
        type=not_negative,
        default=0.0,
        help="metres; pixels whose true depth is not above it do not count (default: %(default)s)",
    )
    protocol.add_argument(
        "--max_depth",
        type=positive,
        help="metres; the largest depth told apart (default: the network's, of two the smaller)",
    )
    protocol.add_argument(
        "--beyond",
        choices=("clamp", "exclude"),
        default="clamp",
        help="true depth beyond it is taken as it, or does not count (default: %(default)s)",
    )
    protocol.add_argument(
        "--image_size", type=positive_int, help="rows and columns of true depth (default: the network's)"
    )
    protocol.add_argument(
        "--preprocessing",
        choices=("default", "official"),
        help="of true depth: the nearest pixel's, or as BatVision's code (default: the network's)",
    )
    protocol.add_argument(
        "--bands",
        type=not_negative,
        nargs="+",
        metavar="METRES",
        default=list(BANDS[:-1]),
        help="where distance bands begin; the last has no end (default: 0 1 2 4 8)",
    )
    intervals = parser.add_argument_group("intervals")
    intervals.add_argument(
        "--resamples", type=positive_int, default=2000, help="of the bootstrap (default: %(default)s)"
    )
    intervals.add_argument("--seed", type=natural, default=0, help="of the bootstrap (default: %(default)s)")
    work = parser.add_argument_group("work")
    work.add_argument("--batch_size", type=positive_int, default=16, help="default: %(default)s")
    work.add_argument("--num_workers", type=natural, default=0, help="processes that load data")
    work.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    work.add_argument(
        "--output",
        type=Path,
        metavar="JSON",
        help="the summary; a table of all images goes beside it as .csv (default: "
        "CHECKPOINT/evaluation-DATASET-SPLIT.json)",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        sys.exit(f"binaural.evaluate: {error}")
    except KeyboardInterrupt:
        sys.exit("binaural.evaluate: stopped")


def run(options: argparse.Namespace) -> None:
    device = choose_device(options.device)
    folders = [options.checkpoint] + ([options.compare] if options.compare else [])
    checkpoints = [load_checkpoint(folder, device) for folder in folders]
    protocol = choose_protocol(options, checkpoints)
    bootstrap = Bootstrap(options.resamples, seed=options.seed)
    output = options.output or (
        Path(options.checkpoint) / f"evaluation-{protocol.dataset}-{protocol.split}.json"
    )
    if output.suffix != ".json":
        raise ValueError(f"--output must end in .json, got {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {output.parent}")

    print("\n".join(protocol.describe()))
    measured: list[Measurements] = []
    summaries: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        recordings = EvaluationSet(protocol, checkpoint.input)
        heard = recordings.describe_input()
        print(f"\n{checkpoint.name}\n  input: {heard}")
        batches = evaluation_loader(recordings, options.batch_size, options.num_workers)
        bar = tqdm(batches, desc="measuring", unit="batch", leave=False)
        features = checkpoint.input.features
        measured.append(
            measure(checkpoint.network, bar, protocol, device, features=features, controls=options.controls)
        )
        summary = summarise(measured[-1], recordings.locations, protocol.band_names, bootstrap)
        summaries.append({"checkpoint": str(checkpoint.folder), "input": heard, **summary})
        print("\n".join(describe(summaries[-1], bootstrap)))
    report = {
        "protocol": protocol.to_json(),
        "bootstrap": {"resamples": bootstrap.resamples, "confidence": bootstrap.confidence,
                      "seed": bootstrap.seed},
        **summaries[0],
    }  # fmt: skip
    columns = {"": measured[0]}
    if options.compare:
        comparison = compare(measured[0], measured[1], bootstrap)
        report |= {"second": summaries[1], "comparison": comparison}
        columns["second_"] = measured[1]
        print(f"\nfirst - second on the same {comparison['images']} images")
        print("\n".join(comparison_table(comparison)))
    write_json(output, report)
    table = output.with_suffix(".csv")
    write_atomically(table, images_csv(recordings.files, recordings.locations, columns))
    print(f"\nsee {output} and {table}")


def choose_protocol(options: argparse.Namespace, checkpoints: list[Checkpoint]) -> Protocol:
    """What was given, or else what suits the networks."""
    first = checkpoints[0].input
    dataset, folder = choose_data(options, first.dataset)
    bands = options.bands
    return Protocol(
        dataset,
        folder,
        options.split,
        max_depth=options.max_depth or min(checkpoint.input.max_depth for checkpoint in checkpoints),
        image_size=options.image_size or first.image_size,
        preprocessing=options.preprocessing or first.preprocessing,
        locations=None if options.locations is None else tuple(options.locations),
        threshold=options.metric_threshold,
        beyond=options.beyond,
        bands=(*bands, float("inf")),
    )


def describe(summary: dict[str, Any], bootstrap: Bootstrap) -> list[str]:
    left_out = f", {summary['unmeasured']} without a pixel left out" if summary["unmeasured"] else ""
    lines = [
        f"  {summary['images']} images{left_out}; {bootstrap.confidence:.0%} intervals over images",
        *means_table(summary["metrics"]),
    ]
    if len(summary["locations"]) > 1:
        lines += rows_table("location", summary["locations"])
    lines += rows_table("true depth", summary["bands"])
    if "controls" in summary:
        lines += rows_table("control", summary["controls"])
        lines += ["  prediction from swapped ears, correlation", *means_table(
            summary["mirroring"]["correlations"]
        )]  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
