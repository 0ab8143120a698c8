"""When the kernels of this folder run, and how they see a map."""

import torch
from torch import Tensor

from binaural.kernels.dispatch import extension
from binaural.kernels.dispatch.backends import requested_backend

_OPERATIONS = (
    "add_mirrored",
    "average_pool",
    "batch_norm_relu",
    "layer_norm",
    "mirror_weight",
    "stem",
    "upsample_concat",
)
_BUILT = all(extension.has_kernel(f"{operation}_forward", "CPU") for operation in _OPERATIONS)


def is_covered(*maps: Tensor) -> bool:
    """Whether the C++ kernels take these maps: float32 or all bfloat16, channels-last and on the CPU.

    On a GPU and for other dtypes PyTorch's own operators run, which torch.compile fuses there.
    """
    return (
        _BUILT
        and requested_backend() in (None, "cpp")
        and all(
            x.device.type == "cpu"
            and x.dtype == maps[0].dtype
            and x.dtype in (torch.float32, torch.bfloat16)
            and x.dim() == 4
            and x.numel() > 0
            and x.is_contiguous(memory_format=torch.channels_last)
            for x in maps
        )
    )


def autocast_dtype(weight: Tensor) -> torch.dtype:
    """The dtype in which a convolution with these weights is computed: autocast's, if that is on."""
    device = weight.device.type
    cast = torch.is_autocast_enabled(device) and weight.dtype != torch.float64
    return torch.get_autocast_dtype(device) if cast else weight.dtype


def from_rows(x: Tensor) -> Tensor:
    """[B, H, W, C] as the kernels write it → [B, C, H, W], channels-last."""
    return x.permute(0, 3, 1, 2)


def empty_rows(x: Tensor) -> Tensor:
    """What the kernels write for a map like x [B, C, H, W]: [B, H, W, C], for the fakes."""
    batch, channels, height, width = x.shape
    return x.new_empty((batch, height, width, channels))


def as_map(gradient: Tensor) -> Tensor:
    """The gradient as the kernels read it: channels-last, where it is a slice of the channels too."""
    _, channels, height, width = gradient.shape
    step = gradient.stride(3)
    strides = (height * width * step, 1, width * step, step)
    # Dimensions of one element have strides without meaning: copying such small maps costs nothing.
    if step >= channels and gradient.stride() == strides:
        return gradient
    return gradient.contiguous(memory_format=torch.channels_last)
