"""Camera pictures, for networks that learn from what a camera saw."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor


def read_picture(path: Path, image_size: int) -> Tensor:
    """A picture [3, image_size, image_size], float32 from 0 to 1, of the view that the depth map shows.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a readable picture; the message names it.
    """
    try:
        with Image.open(path) as picture:
            small = picture.convert("RGB").resize((image_size, image_size), Image.Resampling.BOX)
    except FileNotFoundError:
        raise
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path}: not a readable picture ({error})") from error
    return torch.from_numpy(np.array(small)).permute(2, 0, 1) / 255
