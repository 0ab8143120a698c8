"""Train every system on the same data, measure all by one protocol, and write one table.

`python benchmarks/compare_systems.py`, or `python -m benchmarks.compare_systems`.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

if not __package__:  # run as a file: the repository's root is not where modules are looked for
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.comparison import comparison_report as report
from benchmarks.comparison.compared_systems import BASELINE, SYSTEMS, TEACHER
from benchmarks.comparison.figures import measure_run, parameters, step_seconds, until, validations
from benchmarks.comparison.runs import ROOT, Run, shuffle_labels, train_all
from benchmarks.machine import processor_name
from binaural.command_line import natural, positive_int
from binaural.data import open_split
from binaural.device import choose_device, choose_precision
from binaural.simulate import simulate_dataset
from binaural.training.allocator import set_up_heap

DESCRIPTION = """\
Train every system on the same data with several seeds, measure the best epoch of each on the test split, and
write tables, JSON and a picture to benchmarks/results/compare_systems.*. Controls: the best constant, labels
shuffled, either ear muted, the ears swapped (which must mirror the prediction).

Finished runs are kept; after an interruption the same command continues. Options after -- are
those of train.py, for all systems.
"""

EPILOG = """\
examples:
  python benchmarks/compare_systems.py --jobs 2
  python benchmarks/compare_systems.py --systems unet binaural --seeds 0 1 2 3 4 -- --nb_epochs 20
"""


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="compare_systems.py",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--systems", nargs="+", choices=tuple(SYSTEMS), metavar="NAME", default=list(SYSTEMS),
        help=f"default: all; {'; '.join(SYSTEMS)}",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=natural, default=[0, 1, 2], help="default: 0 1 2")
    parser.add_argument(
        "--dataset_dir",
        type=Path,
        default=Path("data/simulated"),
        help="default: %(default)s, made if needed",
    )
    parser.add_argument("--nb_epochs", type=positive_int, default=8, help="default: %(default)s")
    parser.add_argument(
        "--simulated_rooms", type=positive_int, default=1500, help="training rooms (default: %(default)s)"
    )
    parser.add_argument(
        "--runs_dir", type=Path, default=Path("runs/compare_systems"), help="default: %(default)s"
    )
    parser.add_argument(
        "--jobs", type=positive_int, default=1, help="trainings at a time; they share the cores"
    )
    parser.add_argument("--rounds", type=positive_int, default=20, help="steps timed (default: %(default)s)")
    parser.add_argument("--output", type=Path, default=report.RESULTS, help="default: benchmarks/results")
    parser.add_argument("--docs", action="store_true", help="also write the table into docs/results.md")
    return parser


def main(arguments: list[str] | None = None) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options = make_parser().parse_args(arguments[:split])
    try:
        compare(options, arguments[split + 1 :])
    except (ValueError, OSError, RuntimeError) as error:
        sys.exit(f"compare_systems: {error}")
    except KeyboardInterrupt:
        sys.exit("compare_systems: stopped; the same command continues")


def compare(options: argparse.Namespace, train_arguments: list[str]) -> None:
    set_up_heap()  # as train.py does, for the steps that are timed
    shared = (
        "--nb_epochs", str(options.nb_epochs), "--simulated_rooms", str(options.simulated_rooms),
        *train_arguments,
    )  # fmt: skip
    dataset_dir, runs_dir = options.dataset_dir.resolve(), options.runs_dir.resolve()
    names = [name for name in SYSTEMS if name in options.systems]
    trained = list(names)
    if any(SYSTEMS[name].taught for name in names) and TEACHER not in names:
        trained.append(TEACHER)

    def runs_of(name: str) -> list[Run]:
        data = runs_dir / "shuffled" if SYSTEMS[name].shuffled else dataset_dir
        return [Run(name, seed, runs_dir, data, shared) for seed in options.seeds]

    runs = {name: runs_of(name) for name in trained}
    first = next(iter(runs.values()))[0].options
    if first.dataset == "simulated":
        simulate_dataset(dataset_dir, rooms_train=options.simulated_rooms)
    if any(SYSTEMS[name].shuffled for name in names):
        shuffle_labels(dataset_dir, runs_dir / "shuffled")
    # One seed of all systems after the other: a comparison that is stopped early still compares.
    train_all([runs[name][index] for index in range(len(options.seeds)) for name in trained], options.jobs)

    print(f"timing {options.rounds} steps of each system")
    seconds = step_seconds({name: runs[name][0] for name in names}, options.rounds)
    results = {name: figures(runs[name]) for name in names}
    for name, result in results.items():
        result |= {"step_seconds": seconds[name].p50, "step_seconds_p20_p80": [seconds[name].p20,
                   seconds[name].p80]}  # fmt: skip
    if BASELINE in names:
        baseline = [validations(run) for run in runs[BASELINE]]
        for name in names:
            step_ratio = seconds[name].p50 / seconds[BASELINE].p50
            results[name]["time_to_quality"] = time_to_quality(runs[name], baseline, step_ratio)
    configuration = describe(first, options, dataset_dir, runs[names[0]][0])
    path = report.write(results, configuration, options.output)
    if options.docs:
        report.write_docs(ROOT / "docs/results.md", results, configuration)
    print(path.read_text())
    print(f"see {path}")


def figures(runs: list[Run]) -> dict[str, Any]:
    """By name, lists with a figure per seed."""
    print(f"measuring {runs[0].name}", flush=True)
    measured = [measure_run(run) for run in runs]
    lists = {key: [figure[key] for figure in measured] for key in measured[0] if key != "digest"}
    undefined = [key for key, values in lists.items() if None in values]
    lists |= {key: [] for key in undefined}
    return {**lists, "parameters": parameters(runs[0]), "sees": "swapped" not in measured[0]}


def time_to_quality(
    runs: list[Run], baseline: list[list[tuple[int, float]]], step_ratio: float
) -> dict[str, list[float | None]]:
    """Steps and time until the baseline's final validation RMSE, relative to the baseline's own, by seed.

    Of steps, and of time: steps times that of a step, measured of all systems in turn. The clock would tell
    what else the machine did while a run was made.
    """
    ratios: dict[str, list[float | None]] = {"steps": [], "time": []}
    for run, theirs in zip(runs, baseline, strict=True):
        goal = theirs[-1][1]
        reached, own = until(validations(run), goal), until(theirs, goal)
        assert own is not None  # at the latest at its end
        ratios["steps"].append(None if reached is None else reached / own)
        ratios["time"].append(None if reached is None else reached / own * step_ratio)
    return ratios


def describe(
    train_options: argparse.Namespace, options: argparse.Namespace, dataset_dir: Path, run: Run
) -> dict[str, Any]:
    """Data, training and machine of the comparison."""
    sizes = {
        split: len(open_split(train_options.dataset, dataset_dir, split))
        for split in ("train", "val", "test")
    }
    shown = (
        "dataset",
        "image_size",
        "max_depth",
        "base_channels",
        "nb_epochs",
        "batch_size",
        "learning_rate",
    )
    precision, _why = choose_precision(train_options.precision, choose_device(train_options.device))
    return {
        "date": report.today(),
        "processor": processor_name(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "precision": str(precision).removeprefix("torch."),
        **{name: getattr(train_options, name) for name in shown},
        **sizes,
        "seeds": options.seeds,
        "constant": json.loads((run.folder / "metrics.json").read_text())["constant"],
    }


if __name__ == "__main__":
    main()
