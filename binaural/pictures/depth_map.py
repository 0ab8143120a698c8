"""A depth map as a colour picture."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from binaural.camera_geometry import ASPECT
from binaural.pictures.figures import save_figure


def draw_depth(path: Path, depth: NDArray[np.float32], title: str, farthest: float) -> None:
    """Write a PNG of a depth map [H, W] in the camera's proportions, with a colour scale.

    Args:
        path: PNG file.
        depth: metres.
        title: title of the picture.
        farthest: upper end of the scale, metres.
    """
    figure = Figure(figsize=(7.4, 4.0), layout="constrained")
    axis = figure.subplots()
    height, width = depth.shape
    image = axis.imshow(depth, vmin=0.0, vmax=farthest, cmap="viridis", aspect=width / height / ASPECT)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title)
    figure.colorbar(image, ax=axis, label="depth, m")
    save_figure(figure, path)
