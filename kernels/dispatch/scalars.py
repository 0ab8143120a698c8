"""Numbers from NumPy as arguments."""

from typing import Any

from torch import Tensor


def to_python(value: Any) -> Any:
    """A NumPy scalar or array of zero dimensions as the Python number it holds; all others unchanged."""
    if isinstance(value, int | float | Tensor) or getattr(value, "ndim", None) != 0:
        return value
    return value.item()
