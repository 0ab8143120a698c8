"""Summary of an evaluation: means with confidence intervals, as JSON values."""

from typing import Any

import numpy as np

from binaural.evaluate.intervals import Bootstrap
from binaural.evaluate.per_image import MIRRORING, Measurements
from binaural.metrics import METRICS


def summarise(
    measured: Measurements, locations: list[str], bands: list[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Means over all images, by location, by band of true depth, and of the controls if measured.

    A mean is {"mean", "low", "high"}, over the images with at least one valid pixel.

    Args:
        locations: one per image.
        bands: names of the bands.
    """
    counted = measured.counted
    summary: dict[str, Any] = {
        "images": int(counted.sum()),
        "unmeasured": int((~counted).sum()),
        "metrics": bootstrap.named_means(METRICS, measured.metrics[counted]),
        "locations": {},
        "bands": {},
    }
    for location in sorted(set(locations)):
        here = counted & (np.array(locations) == location)
        summary["locations"][location] = {
            "images": int(here.sum()),
            "metrics": bootstrap.named_means(METRICS, measured.metrics[here]),
        }
    for index, band in enumerate(bands):
        here = measured.band_pixels[:, index] > 0
        summary["bands"][band] = {
            "images": int(here.sum()),
            "pixels": int(measured.band_pixels[:, index].sum()),
            "metrics": bootstrap.named_means(METRICS, measured.band_metrics[here, index]),
        }
    if measured.controls:
        # The correlation of a constant prediction is undefined: such images are left out of the count.
        defined = np.isfinite(measured.mirroring).all(1)
        summary["controls"] = {
            name: {"metrics": bootstrap.named_means(METRICS, values[counted])}
            for name, values in measured.controls.items()
        }
        summary["mirroring"] = {
            "images": int(defined.sum()),
            "correlations": bootstrap.named_means(MIRRORING, measured.mirroring[defined]),
        }
    return summary


def compare(first: Measurements, second: Measurements, bootstrap: Bootstrap) -> dict[str, Any]:
    """Paired differences, first − second, of the metrics on the same images.

    A negative difference of an error, or a positive one of δ, means that the first is better. "first_better"
    is the share of images on which it is.

    Raises:
        ValueError: the two were not measured on the same pixels.
    """
    if not np.array_equal(first.pixels, second.pixels):
        raise ValueError("the two networks were not measured on the same pixels; compare under one protocol")
    counted = first.counted
    difference = first.metrics[counted] - second.metrics[counted]
    means = bootstrap.named_means(METRICS, difference)
    for index, name in enumerate(METRICS):
        better = -difference[:, index] if higher_is_worse(name) else difference[:, index]
        means[name]["first_better"] = float((better > 0).mean()) if len(better) else None
    return {"images": int(counted.sum()), "difference": means}


def higher_is_worse(metric: str) -> bool:
    """Whether a metric is an error; the δ metrics are shares of correct pixels."""
    return not metric.startswith("delta")
