"""Training curves of a run."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from binaural.pictures.figures import save_figure


def draw_curves(path: Path, log: list[dict[str, Any]], terms: tuple[str, ...]) -> None:
    """Write a PNG of loss, loss terms, validation error and learning rate over the steps of a log."""
    steps = [record for record in log if record["kind"] == "train"]
    epochs = [record for record in log if record["kind"] == "validation"]
    figure = Figure(figsize=(12, 3.2), layout="constrained")
    loss, error, rate = figure.subplots(1, 3)
    for name in ("loss", *terms):
        loss.plot([r["step"] for r in steps], [r[name] for r in steps], label=name, linewidth=1)
    loss.set(title="training loss", xlabel="step", yscale="log")
    loss.legend()
    for name in ("rmse", "mae"):
        error.plot(
            [r["step"] for r in epochs], [r[name] for r in epochs], label=name, marker="o", markersize=3
        )
    error.set(title="validation", xlabel="step", ylabel="m")
    error.legend()
    rate.plot([r["step"] for r in steps], [r["learning_rate"] for r in steps])
    rate.set(title="learning rate", xlabel="step")
    save_figure(figure, path)
