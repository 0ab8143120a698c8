"""When the C++ kernels of the fused layers run, and the channels-last maps that they take and return."""

import torch
from torch import Tensor

from binaural.kernels.dispatch.backends import choose

_MAPS = (torch.float32, torch.bfloat16)
# Of the maps that the C++ kernels of each layer take.
DTYPES: dict[str, tuple[torch.dtype, ...]] = {
    "add_mirrored": _MAPS,
    "batch_norm_relu": _MAPS,
    "conv3x3": (torch.float32,),
    "upsample_concat": _MAPS,
}


def runs_on_cpp(operation: str, *maps: Tensor, why_not: str | None = None) -> bool:
    """Whether the C++ kernels of a layer run this call; PyTorch's operators do where they do not.

    Args:
        operation: the layer.
        maps: [B, C, H, W] each.
        why_not: why the kernels do not cover the call whatever its maps are, in one line, or None.

    Raises:
        ValueError: `use_backend("cpp")` is in effect, and the kernels cannot run this call.
    """
    name = choose(operation, None, maps[0], {"cpp": why_not_covered}, operation, maps[1:], why_not)
    return name == "cpp" and maps[0].numel() > 0


def why_not_covered(
    x: Tensor, operation: str, others: tuple[Tensor, ...] = (), why_not: str | None = None
) -> str | None:
    """Why the C++ kernels of a layer do not take these maps, in one line, or else `why_not`."""
    for tensor in (x, *others):
        if tensor.dtype not in DTYPES[operation]:
            names = " and ".join(str(dtype).removeprefix("torch.") for dtype in DTYPES[operation])
            return f"its kernels take {names}, and this tensor is {str(tensor.dtype).removeprefix('torch.')}"
        if tensor.dtype != x.dtype:
            return "its kernels take tensors of one dtype, and these differ"
        if tensor.dim() != 4 or not tensor.is_contiguous(memory_format=torch.channels_last):
            return "its kernels take tensors [B, C, H, W] in channels-last memory, and this one is not"
    return why_not


def from_rows(x: Tensor) -> Tensor:
    """[B, H, W, C] as the kernels write it → [B, C, H, W], channels-last."""
    return x.permute(0, 3, 1, 2)


def empty_rows(x: Tensor) -> Tensor:
    """An empty [B, H, W, C], as the kernels write it, for a map [B, C, H, W]; for the fake kernels."""
    batch, channels, height, width = x.shape
    return x.new_empty((batch, height, width, channels))


def as_map(gradient: Tensor) -> Tensor:
    """The gradient as the kernels take it: channels-last, or a slice of the channels of such a map."""
    _, channels, height, width = gradient.shape
    step = gradient.stride(3)
    strides = (height * width * step, 1, width * step, step)
    # Dimensions of one element may have any stride: copying such small maps costs nothing.
    if step >= channels and gradient.stride() == strides:
        return gradient
    return gradient.contiguous(memory_format=torch.channels_last)
