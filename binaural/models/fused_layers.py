"""Fused operations in the place of modules, wherever the result is what calling these modules gives.

A fused operation computes several modules at once from their parameters, without calling them. `is_plain` is
the condition for that; where it does not hold, the modules are called one by one. So forward hooks fire, and
pruning, weight norm, spectral norm, other kinds of norms, observers and wrappers work as with PyTorch's
modules.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as module_globals

from binaural.kernels.layers import batch_norm_relu, share_norms, without_channels

_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether calling `module` would do nothing but `kind.forward`, with the module's parameters.

    False for subclasses, to which parametrizations change a module, for modules with hooks of their own
    (pruning and the older weight norm and spectral norm are hooks) or while a hook of all modules is
    registered, and where `forward` was replaced.
    """
    return (
        type(module) is kind
        and not any(module.__dict__[hooks] for hooks in _HOOKS)
        and "forward" not in module.__dict__
        and not module_globals._has_any_global_hook()
    )


def norm_relu(
    norm: nn.Module,
    x: Tensor,
    *,
    relu: nn.Module | None = None,
    copies: int = 1,
    pool: bool = False,
    keep: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """ReLU(norm(x)) and, with `pool`, its maximum over each 2 × 2 pixels.

    One operation for a plain `nn.BatchNorm2d` with weights and running statistics; the modules are called for
    all others.

    Args:
        norm: of maps with C / copies channels.
        x: [B, C, H, W].
        relu: the ReLU module; None for a ReLU without a module.
        copies: that many groups of channels share the norm: channels c, c + C / copies, ... its c-th.
        pool: compute the pooled map too.
        keep: return the map itself; without, one of zero channels, which costs nothing.

    Returns:
        The map [B, C, H, W], or [B, 0, H, W] without `keep`; the pooled map [B, C, H // 2, W // 2], or None.
    """
    if (relu is None or is_plain(relu, nn.ReLU)) and (numbers := _batch_norm(norm)) is not None:
        return batch_norm_relu(x, **numbers, pool=pool, keep=keep)
    y = share_norms(norm, x, x.shape[1] // copies)
    # Not in place: hooks may hold the norm's output.
    y = F.relu(y) if relu is None else relu(y)
    return y if keep else without_channels(y), F.max_pool2d(y, 2) if pool else None


def _batch_norm(norm: nn.Module) -> dict[str, Any] | None:
    """The arguments of `batch_norm_relu` that compute `norm`, or None where it has to be called.

    In training mode the batch is counted in `num_batches_tracked`.
    """
    if not is_plain(norm, nn.BatchNorm2d):
        return None
    assert isinstance(norm, nn.BatchNorm2d)
    tensors = {name: getattr(norm, name) for name in ("weight", "bias", "running_mean", "running_var")}
    if any(tensor is None for tensor in tensors.values()):
        return None
    momentum = norm.momentum
    if norm.training:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        if momentum is None:  # the running statistics are averages over all batches, as of nn.BatchNorm2d
            momentum = 1.0 / float(norm.num_batches_tracked)
    return tensors | {"training": norm.training, "momentum": momentum or 0.0, "eps": norm.eps}
