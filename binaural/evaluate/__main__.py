"""python -m binaural.evaluate: metrics of a trained network, or of two on the same images."""

import argparse
from pathlib import Path
from typing import Any

from tqdm import tqdm

from binaural.atomic_files import write_atomically, write_json
from binaural.checkpoint import Checkpoint, load_checkpoint
from binaural.command_line import (
    add_data_options,
    choose_data,
    errors_in_one_line,
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
intervals, by location and by distance. The data set may differ from the training data:
the input is made as in training, shifted so that the chirp starts at the same sample, and padded with silence
where a recording is short.

True depth beyond --max_depth (default: the network's own) is clamped to it, as in training; with --beyond
exclude these pixels do not count. The protocol is printed and saved.
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
        help="also measure with one ear muted, and with the ears swapped, which should mirror the prediction",
    )
    add_data_options(parser)
    protocol = parser.add_argument_group("protocol")
    protocol.add_argument(
        "--metric_threshold",
        type=not_negative,
        default=0.0,
        help="metres; only pixels with a larger true depth count (default: %(default)s)",
    )
    protocol.add_argument(
        "--max_depth",
        type=positive,
        help="metres (default: the network's; the smaller one of two networks)",
    )
    protocol.add_argument(
        "--beyond",
        choices=("clamp", "exclude"),
        default="clamp",
        help="true depth beyond --max_depth is clamped or excluded (default: %(default)s)",
    )
    protocol.add_argument(
        "--image_size",
        type=positive_int,
        help="rows and columns of the true depth map (default: the network's)",
    )
    protocol.add_argument(
        "--preprocessing",
        choices=("default", "official"),
        help="resizing of true depth: nearest pixel, or as BatVision's code (default: the network's)",
    )
    protocol.add_argument(
        "--bands",
        type=not_negative,
        nargs="+",
        metavar="METRES",
        default=list(BANDS[:-1]),
        help="lower edges of the distance bands (default: 0 1 2 4 8)",
    )
    intervals = parser.add_argument_group("intervals")
    intervals.add_argument(
        "--resamples", type=positive_int, default=2000, help="bootstrap resamples (default: %(default)s)"
    )
    intervals.add_argument(
        "--seed", type=natural, default=0, help="seed of the bootstrap (default: %(default)s)"
    )
    work = parser.add_argument_group("work")
    work.add_argument("--batch_size", type=positive_int, default=16, help="default: %(default)s")
    work.add_argument("--num_workers", type=natural, default=0, help="worker processes that load data")
    work.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    work.add_argument(
        "--output",
        type=Path,
        metavar="JSON",
        help="the summary; a .csv with a row per image is written beside it (default: "
        "CHECKPOINT/evaluation-DATASET-SPLIT.json, with -controls or -against-NAME added for these)",
    )
    return parser


def main(arguments: list[str] | None = None) -> None:
    options = make_parser().parse_args(arguments)
    with errors_in_one_line("binaural.evaluate"):
        run(options)


def run(options: argparse.Namespace) -> None:
    device = choose_device(options.device)
    folders = [options.checkpoint] + ([options.compare] if options.compare else [])
    checkpoints = [load_checkpoint(folder, device) for folder in folders]
    protocol = choose_protocol(options, checkpoints)
    bootstrap = Bootstrap(options.resamples, seed=options.seed)
    output = options.output or default_output(options, protocol)
    if output.suffix != ".json":
        raise ValueError(f"--output must end in .json, got {output}")
    if not output.parent.is_dir():
        raise FileNotFoundError(f"--output: there is no folder {output.parent}")

    print("\n".join(protocol.describe()))
    measured: list[Measurements] = []
    summaries: list[dict[str, Any]] = []
    for checkpoint in checkpoints:
        recordings = EvaluationSet(protocol, checkpoint.input)
        described = recordings.describe_input()
        print(f"\n{checkpoint.name}\n  input: {described}")
        batches = evaluation_loader(recordings, options.batch_size, options.num_workers)
        bar = tqdm(batches, desc="measuring", unit="batch", leave=False)
        features = checkpoint.input.features
        measured.append(
            measure(checkpoint.network, bar, protocol, device, features=features, controls=options.controls)
        )
        summary = summarise(measured[-1], recordings.locations, protocol.band_names, bootstrap)
        summaries.append({"checkpoint": str(checkpoint.folder), "input": described, **summary})
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


def default_output(options: argparse.Namespace, protocol: Protocol) -> Path:
    """A file of its own for each kind of evaluation, so that one does not replace another."""
    name = f"evaluation-{protocol.dataset}-{protocol.split}" + "-controls" * options.controls
    if options.compare:
        name += "-against-" + "-".join(Path(options.compare).absolute().parts[-2:])
    return Path(options.checkpoint) / f"{name}.json"


def choose_protocol(options: argparse.Namespace, checkpoints: list[Checkpoint]) -> Protocol:
    """The protocol of the options; what they do not give is that of the networks."""
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
    left_out = f", {summary['unmeasured']} without a valid pixel left out" if summary["unmeasured"] else ""
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
