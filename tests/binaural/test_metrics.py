"""Metrics against a plain NumPy computation image by image, and their traps."""

import math

import numpy as np
import pytest
import torch

from binaural.metrics import METRICS, DepthMetrics, depth_metrics


def by_hand(pred, target, threshold):
    mask = np.isfinite(target) & (target > threshold)
    p, g = pred[mask].astype(np.float64), target[mask].astype(np.float64)
    q = np.maximum(p, 1e-3)
    ratio = np.maximum(g / q, q / g)
    return {
        "rmse": np.sqrt(np.mean((g - p) ** 2)),
        "abs_rel": np.mean(np.abs(g - p) / g),
        "log10": np.mean(np.abs(np.log10(g) - np.log10(q))),
        "mae": np.mean(np.abs(g - p)),
        "delta1": np.mean(ratio < 1.25),
        "delta2": np.mean(ratio < 1.25**2),
        "delta3": np.mean(ratio < 1.25**3),
    }


def random_batch(images=6, shape=(5, 7)):
    rng = np.random.default_rng(0)
    target = rng.uniform(0.2, 10, (images, 1, *shape)).astype(np.float32)
    pred = (target * rng.uniform(0.5, 1.7, target.shape)).astype(np.float32)
    # Images differ in their number of valid pixels, so that per-batch and per-image means differ.
    for i in range(images):
        target[i].reshape(-1)[: 5 * i] = 0
    target[1, 0, 0, :3] = np.nan, np.inf, -1
    return pred, target


@pytest.mark.parametrize("threshold", [0.0, 0.5])
@pytest.mark.parametrize("batch", [1, 4, 6])
def test_equals_numpy_image_by_image(threshold, batch):
    pred, target = random_batch()
    metrics = DepthMetrics(threshold=threshold)
    for start in range(0, 6, batch):
        metrics.update(
            torch.from_numpy(pred[start : start + batch]), torch.from_numpy(target[start : start + batch])
        )
    expected = [by_hand(p, g, threshold) for p, g in zip(pred, target, strict=True)]
    result = metrics.compute()
    assert tuple(result) == METRICS
    for name, value in result.items():
        assert value == pytest.approx(np.mean([image[name] for image in expected]), rel=1e-9)
    assert metrics.images == 6


def test_perfect_and_known_values():
    target = torch.full((2, 4, 4), 2.0)
    metrics = DepthMetrics()
    metrics.update(target.clone(), target)
    assert metrics.compute() == dict(zip(METRICS, [0, 0, 0, 0, 1, 1, 1], strict=True))
    metrics = DepthMetrics()
    metrics.update(torch.full((1, 4, 4), 3.0), target[:1])
    known = dict(zip(METRICS, [1, 0.5, math.log10(1.5), 1, 0, 1, 1], strict=True))
    assert metrics.compute() == pytest.approx(known)


def test_no_pixel_is_dropped_for_its_prediction():
    target = torch.full((1, 1, 2, 2), 1.0)
    pred = torch.tensor([[[[1.0, 1.0], [0.0, -5.0]]]])
    result = depth_metrics(pred, target)[0]
    named = dict(zip(METRICS, result.tolist(), strict=True))
    assert named["delta1"] == 0.5
    assert named["mae"] == pytest.approx((0 + 0 + 1 + 6) / 4)
    assert named["log10"] == pytest.approx((3 + 3) / 4)
    pred[0, 0, 0, 0] = torch.nan
    assert depth_metrics(pred, target)[0, 0].isnan()


def test_prediction_outside_the_mask_has_no_say():
    pred, target = (torch.from_numpy(x) for x in random_batch())
    before = depth_metrics(pred, target)
    spoiled = torch.where(torch.isfinite(target) & (target > 0), pred, torch.nan)
    assert torch.equal(depth_metrics(spoiled, target), before)


def test_images_without_valid_pixel_are_counted_and_left_out():
    pred, target = (torch.from_numpy(x) for x in random_batch(2))
    alone = DepthMetrics()
    alone.update(pred, target)
    metrics = DepthMetrics()
    metrics.update(torch.cat([pred, pred[:1]]), torch.cat([target, torch.zeros_like(target[:1])]))
    assert (metrics.images, metrics.unmeasured) == (2, 1)
    assert metrics.compute() == alone.compute()
    assert all(math.isnan(value) for value in DepthMetrics().compute().values())


def test_states_add():
    pred, target = (torch.from_numpy(x) for x in random_batch())
    whole, first, rest = DepthMetrics(), DepthMetrics(), DepthMetrics()
    whole.update(pred, target)
    first.update(pred[:1], target[:1])
    rest.update(pred[1:], target[1:])
    first.state += rest.state
    assert first.compute() == pytest.approx(whole.compute(), rel=1e-12)


def test_low_precision_is_measured_in_double():
    pred, target = (torch.from_numpy(x) for x in random_batch())
    pred = pred.bfloat16()
    assert torch.equal(depth_metrics(pred, target), depth_metrics(pred.double(), target.double()))


def test_wrong_input():
    with pytest.raises(ValueError, match=r"got \[2, 1, 4, 4\] and \[2, 4, 4\]"):
        depth_metrics(torch.ones(2, 1, 4, 4), torch.ones(2, 4, 4))
    with pytest.raises(ValueError, match=r"\[2, 3, 4, 4\]"):
        DepthMetrics().update(torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4))
    for threshold in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="threshold must be at least 0 m"):
            DepthMetrics(threshold=threshold)
        with pytest.raises(ValueError, match="threshold must be at least 0 m"):
            depth_metrics(torch.ones(1, 4, 4), torch.ones(1, 4, 4), threshold=threshold)
