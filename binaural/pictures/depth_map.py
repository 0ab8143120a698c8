"""A depth map as a colour picture.

Drawn by Pillow: Matplotlib takes five times as long for a picture of this kind.
"""

import io
from functools import cache
from pathlib import Path

import numpy as np
from matplotlib import colormaps, get_data_path
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from binaural.atomic_files import write_atomically
from binaural.camera_geometry import ASPECT

_WIDTH, _MARGIN, _TITLE = 600, 12, 36  # pixels
_SCALE = 18  # pixels: width of the colour scale
_LABELS = 70  # pixels: width of the numbers beside it
_TICKS = 6
_TEXT = (38, 38, 38)


def draw_depth(path: Path, depth: NDArray[np.float32], title: str, farthest: float) -> None:
    """Write a PNG of a depth map [H, W] in the camera's proportions, with a colour scale.

    Args:
        path: PNG file.
        depth: metres.
        title: title of the picture.
        farthest: upper end of the scale, metres.
    """
    height = round(_WIDTH / ASPECT)
    left, top = _MARGIN, _TITLE
    scale_left = left + _WIDTH + _MARGIN
    canvas = Image.new("RGB", (scale_left + _SCALE + _LABELS, top + height + _MARGIN), "white")
    canvas.paste(_colour(depth / farthest, (_WIDTH, height)), (left, top))
    canvas.paste(_colour(np.linspace(1, 0, 256)[:, None], (_SCALE, height)), (scale_left, top))
    draw, font = ImageDraw.Draw(canvas), _font()
    draw.text((left + _WIDTH / 2, top / 2), title, _TEXT, font, "mm")
    draw.text((scale_left, top / 2), "depth, m", _TEXT, font, "lm")
    for share in np.linspace(0, 1, _TICKS):
        y = top + (1 - share) * (height - 1)
        draw.text((scale_left + _SCALE + 6, y), f"{share * farthest:.2f}", _TEXT, font, "lm")
    content = io.BytesIO()
    canvas.save(content, format="PNG")
    write_atomically(path, content.getvalue())


@cache
def _font() -> ImageFont.FreeTypeFont:
    # Matplotlib's own font: Pillow's default lacks letters beyond ASCII.
    return ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), 13)


def _colour(values: NDArray[np.floating], size: tuple[int, int]) -> Image.Image:
    """Values [H, W] from 0 to 1 as a picture of `size` (width, height) pixels."""
    colours = colormaps["viridis"](values, bytes=True)[..., :3]
    return Image.fromarray(np.ascontiguousarray(colours)).resize(size, Image.Resampling.NEAREST)
