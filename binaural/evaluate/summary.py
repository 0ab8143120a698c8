"""From measurements of images to what is reported: means with intervals, as JSON values."""

from typing import Any

import numpy as np

from binaural.evaluate.intervals import Bootstrap
from binaural.evaluate.per_image import MIRRORING, Measurements
from binaural.metrics import METRICS


def summarise(
    measured: Measurements, locations: list[str], bands: list[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """Means over all images, by location and by band of true depth; of the controls, if measured.

    A mean is {"mean", "low", "high"}; it is over the images that have a pixel that counts.

    Args:
        locations: of each image.
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
        # A prediction that is constant correlates with nothing; it is left out and the count says so.
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

    Below 0 the first is better in errors, above 0 in δ. "first_better" is the share of images on which it is.

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
    """Of a name in `METRICS`: an error, or a share of pixels that are right."""
    return not metric.startswith("delta")
