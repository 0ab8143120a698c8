"""What all pictures share."""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from binaural.atomic_files import write_atomically


def hide_unmeasured(values: Tensor, depths: Tensor) -> np.ma.MaskedArray:
    """`values` without those where `depths`, of the same shape, is 0."""
    return np.ma.masked_array(values.numpy(), mask=(depths <= 0).numpy())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    # The canvas is made here, without pyplot: no global state, no window, whatever MPLBACKEND says.
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_atomically(path, content.getvalue())
