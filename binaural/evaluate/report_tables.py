"""An evaluation as lines of text, and as a CSV table with a row per image."""

import csv
import io
from collections.abc import Iterable
from typing import Any

from binaural.evaluate.per_image import Measurements
from binaural.metrics import METRICS

_WIDTH = 21  # of the names of rows


def means_table(metrics: dict[str, dict[str, Any]]) -> list[str]:
    """One line per metric: mean and interval."""
    return [f"  {name:<{_WIDTH}} {_interval(value)}" for name, value in metrics.items()]


def rows_table(title: str, rows: dict[str, dict[str, Any]]) -> list[str]:
    """One line per location, band or control: number of images and the mean of each metric."""
    width = max(_WIDTH, *(len(name) for name in rows), len(title))
    lines = [f"  {title:<{width}} {'images':>7}  " + " ".join(f"{name:>8}" for name in METRICS)]
    for name, row in rows.items():
        values = " ".join(f"{_number(row['metrics'][metric]['mean']):>8}" for metric in METRICS)
        lines.append(f"  {name or '-':<{width}} {row.get('images', ''):>7}  {values}")
    return lines


def comparison_table(comparison: dict[str, Any]) -> list[str]:
    """One line per metric: difference, interval, verdict, share of images on which the first is better."""
    lines = []
    for name, value in comparison["difference"].items():
        low, high, share = value["low"], value["high"], value["first_better"]
        if low is None or low <= 0 <= high:
            verdict = "no significant difference"
        else:
            verdict = "first better" if (high < 0) != name.startswith("delta") else "second better"
        share = "-" if share is None else f"{share:.0%}"
        lines.append(f"  {name:<{_WIDTH}} {_interval(value, sign='+')}  {verdict}; first better on {share}")
    return lines


def images_csv(files: list[str], locations: list[str], measured: dict[str, Measurements]) -> bytes:
    """A row per image: file, location, number of valid pixels, the metrics of each network.

    Args:
        measured: measurements by the prefix of their columns; "" for no prefix.
    """
    first = next(iter(measured.values()))
    names = [prefix + name for prefix in measured for name in METRICS]
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["file", "location", "pixels", *names])
    for index, (file, location) in enumerate(zip(files, locations, strict=True)):
        values: Iterable[float] = (x for m in measured.values() for x in m.metrics[index])
        writer.writerow([file, location, int(first.pixels[index]), *(f"{value:.6g}" for value in values)])
    return text.getvalue().encode()


def _interval(value: dict[str, Any], sign: str = "-") -> str:
    return f"{_number(value['mean'], sign)}  [{_number(value['low'], sign)}, {_number(value['high'], sign)}]"


def _number(value: float | None, sign: str = "-") -> str:
    return "-" if value is None else f"{value:{sign}.3f}"
