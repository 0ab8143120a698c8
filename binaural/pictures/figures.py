"""Masking of unmeasured pixels, and saving of figures."""

import io
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from binaural.atomic_files import write_atomically


def hide_unmeasured(values: Tensor, depths: Tensor) -> np.ma.MaskedArray:
    """`values`, masked where `depths` (same shape, metres) has no measurement."""
    return np.ma.masked_array(values.numpy(), mask=(depths <= 0).numpy())


def save_figure(figure: Figure, path: Path) -> None:
    """Write a PNG file atomically."""
    # Without pyplot: no global state, and no window, whatever MPLBACKEND is set to.
    FigureCanvasAgg(figure)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=100)
    write_atomically(path, content.getvalue())
