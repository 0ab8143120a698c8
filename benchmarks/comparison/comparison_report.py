"""The comparison as tables, JSON, a picture, and the table in docs/results.md."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from matplotlib.figure import Figure

from benchmarks.comparison.compared_systems import BASELINE, PIX2PIX_CHANNELS, SYSTEMS
from benchmarks.report import RESULTS, table
from binaural.atomic_files import write_atomically, write_json
from binaural.pictures.figures import save_figure

MARKERS = ("<!-- compare_systems: begin -->", "<!-- compare_systems: end -->")

Results = dict[str, dict[str, Any]]


def write(results: Results, configuration: dict[str, Any], folder: Path = RESULTS) -> Path:
    """Write `compare_systems.md`, `.json` and `.png`; returns the first's path.

    Args:
        results: by the name of the system, in the order of the table: lists with a figure per seed.
        configuration: data, training and machine, as JSON values.
        folder: made if it is not there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "compare_systems.md"
    parts = [
        "# The systems compared",
        describe(configuration),
        main_table(results, configuration["constant"]),
    ]
    parts += ["## Controls", CONTROLS, controls_table(results, configuration["constant"])]
    if BASELINE in results:
        parts += ["## Time to quality", TIME_TO_QUALITY, time_table(results)]
    write_atomically(path, ("\n\n".join(parts) + "\n").encode())
    write_json(path.with_suffix(".json"), {**results, "configuration": configuration})
    draw(path.with_suffix(".png"), results, configuration["constant"]["rmse"])
    return path


def describe(configuration: dict[str, Any]) -> str:
    """One paragraph: date, processor, data and training."""
    seeds = ", ".join(map(str, configuration["seeds"]))
    threads = f"{configuration['threads']} thread" + "s" * (configuration["threads"] > 1)
    return (
        f"{configuration['date']}, {configuration['processor']}, torch {configuration['torch']}, "
        f"{configuration['precision']}. "
        f"{configuration['dataset']}: {configuration['train']} recordings to train, "
        f"{configuration['val']} to choose the best epoch, {configuration['test']} to test; "
        f"{configuration['image_size']} x {configuration['image_size']}, up to "
        f"{configuration['max_depth']:g} m, base "
        f"{configuration['base_channels']} (`unet_pix2pix`: {PIX2PIX_CHANNELS}), "
        f"{configuration['nb_epochs']} epochs, batch "
        f"{configuration['batch_size']}, seeds {seeds}. Mean ± standard deviation over the seeds; a step is "
        f"forward, loss, backward and optimiser on {threads}, all systems in turn, its median."
    )


CONTROLS = (
    "RMSE in metres, mean over the seeds, with one ear muted, and with the ears swapped against the mirrored "
    "true depth. Then correlations of the prediction from swapped ears: with the mirrored prediction, with "
    "the prediction itself, and of the difference between left and right half. `binaural` mirrors by "
    "construction, except for the row with separate weights for each ear. The last column is the correlation "
    "of the difference between left and right half, from the ears as they are, with that of the true depth."
)
TIME_TO_QUALITY = (
    "Steps and time until a run first reaches the final validation RMSE of `unet` with the same seed, "
    "relative to what `unet` needs to reach it. Time is steps times the measured time of a step. Median over "
    "the seeds; in brackets the number of seeds that reached it."
)


def main_table(results: Results, constant: dict[str, float]) -> str:
    """Metrics, parameters and time of a step of all systems; shuffled labels are among the controls."""
    metrics = ("rmse", "abs_rel", "delta1")
    header = ["", "RMSE, m", "ABS_REL", "δ1", "RMSE against unet", "parameters", "ms a step"]
    rows = []
    for name, result in results.items():
        if SYSTEMS[name].shuffled:
            continue
        change = ""
        if BASELINE in results and name != BASELINE:
            change = f"{mean(result['rmse']) / mean(results[BASELINE]['rmse']) - 1:+.1%}"
        rows.append(
            [
                f"`{name}`" + (" (sees the camera's picture)" if result["sees"] else ""),
                *(spread(result[metric]) for metric in metrics),
                change,
                f"{result['parameters'] / 1e6:.2f} M",
                f"{1000 * result['step_seconds']:.0f}",
            ]
        )
    rows.append(["best constant", *(f"{constant[metric]:.3f}" for metric in metrics), "", "", ""])
    return table(header, rows)


def controls_table(results: Results, constant: dict[str, float]) -> str:
    header = ["", "RMSE", "left muted", "right muted", "swapped", "with mirrored", "with original",
              "left-right", "left-right, true"]  # fmt: skip
    names = ("rmse", "left_muted", "right_muted", "swapped", "with_mirrored", "with_original",
             "left_right_difference", "left_right_truth")  # fmt: skip
    rows = [["best constant", f"{constant['rmse']:.3f}", *[""] * (len(names) - 1)]]
    for name, result in results.items():
        if not result["sees"]:
            rows.append([f"`{name}`", *(f"{mean(result[key]):.3f}" if result[key] else "-" for key in names)])
    return table(header, rows)


def time_table(results: Results) -> str:
    rows = []
    for name, result in results.items():
        if SYSTEMS[name].shuffled or result["sees"]:
            continue
        ratios = result["time_to_quality"]
        columns = [_median(ratios[key]) for key in ("steps", "time")]
        reached = sum(ratio is not None for ratio in ratios["steps"])
        rows.append([f"`{name}`", *columns, f"({reached} of {len(ratios['steps'])})"])
    return table(["", "steps", "time", "reached"], rows)


def _median(ratios: Sequence[float | None]) -> str:
    """Median over the seeds; a seed that never reached the RMSE counts as infinite."""
    ordered = sorted(float("inf") if ratio is None else ratio for ratio in ratios)
    middle = ordered[len(ordered) // 2]
    return "never" if middle == float("inf") else f"{middle:.2f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation over the seeds; one seed has none."""
    return f"{mean(values):.3f}" + (f" ± {stdev(values):.3f}" if len(values) > 1 else "")


def draw(path: Path, results: Results, constant: float) -> None:
    """A PNG: RMSE of every seed, its mean, and the constant's as a line."""
    figure = Figure(figsize=(9, 1.2 + 0.32 * len(results)), layout="constrained")
    axis = figure.subplots()
    for row, (name, result) in enumerate(results.items()):
        colour = "C0" if name == "binaural" else "0.6" if SYSTEMS[name].shuffled else "C7"
        axis.barh(row, mean(result["rmse"]), color=colour, height=0.7)
        axis.plot(result["rmse"], [row] * len(result["rmse"]), "|", color="black", markersize=9)
    axis.axvline(constant, color="C3", linewidth=1, linestyle="--", label="best constant")
    axis.set_yticks(range(len(results)), list(results))
    axis.invert_yaxis()
    axis.set_xlabel("RMSE on recordings never seen, m; strokes are seeds")
    axis.legend(loc="best", fontsize="small")
    save_figure(figure, path)


def write_docs(page: Path, results: Results, configuration: dict[str, Any]) -> None:
    """Replace the text between `MARKERS` in `page` by the table and a description of how it was measured.

    Raises:
        ValueError: the markers are not there.
    """
    text = page.read_text()
    begin, end = (text.find(marker) for marker in MARKERS)
    if not 0 <= begin < end:
        raise ValueError(f"{page}: expected the lines {MARKERS[0]} and {MARKERS[1]}")
    content = f"{MARKERS[0]}\n{main_table(results, configuration['constant'])}\n\n{describe(configuration)}\n"
    write_atomically(page, (text[:begin] + content + text[end:]).encode())


def today() -> str:
    return f"{date.today():%Y-%m-%d}"
