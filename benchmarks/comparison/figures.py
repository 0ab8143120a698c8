"""The figures of runs: on the test split, with ears muted and swapped, over time, and of a step."""

import hashlib
import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch

from benchmarks.comparison.runs import Run
from benchmarks.measure import Spread, interleave
from binaural.atomic_files import write_json
from binaural.checkpoint import load_checkpoint
from binaural.data.loading import evaluation_loader
from binaural.device import autocast, choose_device, choose_precision
from binaural.evaluate.per_image import CONTROLS, MIRRORING, measure
from binaural.evaluate.protocol import EvaluationSet, Protocol
from binaural.features import CAMERA, channel_names
from binaural.metrics import METRICS
from binaural.models.pretrained import WEIGHTS
from binaural.training.build import make_loss, make_network
from binaural.training.optimisation import make_optimizer
from binaural.training.run_folder import RunFolder

_FILE = "comparison.json"


def measure_run(run: Run) -> dict[str, Any]:
    """Means over the test split, by name, of the best weights of a run; kept in its folder.

    The seven metrics; and unless it sees, "left_muted", "right_muted" and "swapped" (against the mirrored
    truth), RMSE each, and the correlations of `MIRRORING`.
    """
    # A digest of the weights and of the measured figures.
    names = repr((METRICS, CONTROLS, MIRRORING)).encode()
    digest = hashlib.sha256((run.folder / "best" / WEIGHTS).read_bytes() + names).hexdigest()
    kept = run.folder / _FILE
    if kept.is_file():
        figures = json.loads(kept.read_text())
        if figures.get("digest") == digest:
            return figures
    options = run.options
    device = choose_device(options.device)
    checkpoint = load_checkpoint(run.folder / "best", device)
    protocol = Protocol(
        options.dataset,
        str(run.dataset_dir),
        "test",
        max_depth=options.max_depth,
        image_size=options.image_size,
        preprocessing=options.preprocessing,
        threshold=options.metric_threshold,
    )
    has_ears = not checkpoint.input.sees
    batches = evaluation_loader(EvaluationSet(protocol, checkpoint.input), options.batch_size, 0)
    features = checkpoint.input.features
    measured = measure(checkpoint.network, batches, protocol, device, features=features, controls=has_ears)
    counted = measured.counted
    figures = {"digest": digest, **_means(METRICS, measured.metrics[counted])}
    for name, values in measured.controls.items():
        figures[name] = _means(METRICS, values[counted])["rmse"]
    if has_ears:
        defined = np.isfinite(measured.mirroring).all(1)  # a constant prediction correlates with nothing
        figures |= _means(MIRRORING, measured.mirroring[defined])
    write_json(kept, figures)
    return figures


def _means(names: Iterable[str], values: np.ndarray) -> dict[str, float | None]:
    means = values.mean(0) if len(values) else np.full(values.shape[1], np.nan)
    return {name: float(x) if math.isfinite(x) else None for name, x in zip(names, means, strict=True)}


def validations(run: Run) -> list[tuple[int, float]]:
    """(step, RMSE in metres) of each validation, by the run's log."""
    records = RunFolder(run.folder, writes=False).read_log()
    return [(record["step"], record["rmse"]) for record in records if record["kind"] == "validation"]


def until(found: list[tuple[int, float]], rmse: float) -> int | None:
    """Steps until the first validation with at most that RMSE; None if there is none."""
    return next((step for step, value in found if value <= rmse), None)


def parameters(run: Run) -> int:
    """Number of parameters of the network, without a teacher."""
    return sum(p.numel() for p in make_network(run.options).parameters())


def step_seconds(runs: dict[str, Run], rounds: int) -> dict[str, Spread]:
    """Seconds of a training step of each system, in turn: forward, loss, backward, optimiser.

    In the precision that they train in, eager, on a batch of random numbers.
    """
    return {
        name: Spread.of(seconds)
        for name, seconds in interleave({name: _step(run) for name, run in runs.items()}, rounds).items()
    }


def _step(run: Run) -> Callable[[], None]:
    options = run.options
    device = choose_device(options.device)
    precision, _why = choose_precision(options.precision, device)
    network = make_network(options).to(device).to(memory_format=torch.channels_last)
    loss = make_loss(options, network).to(device)
    optimizer = make_optimizer(options.optimizer, network, options.learning_rate, options.weight_decay)
    batch, size = options.batch_size, options.image_size
    channels = len(channel_names(options.features))
    inputs = torch.rand(batch, channels, size, size, device=device).to(memory_format=torch.channels_last)
    seen = [options.max_depth * torch.rand(batch, 1, size, size, device=device)]
    if run.system.taught:
        seen.append(torch.rand(batch, len(channel_names(CAMERA)), size, size, device=device))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with autocast(device, precision):
            value = loss(network(inputs), *seen)[0]
        value.backward()
        optimizer.step()

    return step
