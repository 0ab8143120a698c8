"""Camera pictures, for networks whose input is the camera's picture."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

MAX_PIXELS = 1 << 26
"""Pixels of the largest picture that is decoded."""

# Pillow would run Ghostscript on PostScript files.
_FORMATS = ("JPEG", "PNG", "BMP", "PPM", "TIFF", "WEBP")


def read_picture(path: Path, image_size: int) -> Tensor:
    """A picture [3, image_size, image_size], float32 from 0 to 1, with the depth map's field of view.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable picture, or one of more than `MAX_PIXELS`; the message names it.
    """
    try:
        with Image.open(path, formats=_FORMATS) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS:
                raise ValueError(f"{width} x {height} pixels, expected at most {MAX_PIXELS}")
            small = picture.convert("RGB").resize((image_size, image_size), Image.Resampling.BOX)
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged files make Pillow raise SyntaxError, struct.error, TypeError ...
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path}: not a readable picture ({reason})") from error
    return torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
