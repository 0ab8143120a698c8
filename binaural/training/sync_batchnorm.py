"""Batch norm over the samples of all ranks, on CPUs and GPUs (torch.nn.SyncBatchNorm needs GPUs)."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx


class SyncBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` with the mean and variance over the batches of all ranks.

    Every rank must have the same number of samples of the same size. In evaluation mode it is a plain batch
    norm.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        variances, means = torch.var_mean(x.float(), (0, 2, 3), correction=0)
        own = torch.stack((means, variances))  # [2, C]
        means, variances = _AllGather.apply(own).unbind(1)  # [processes, C] each
        mean = means.mean(0)
        variance = (variances + (means - mean).square()).mean(0)
        if self.track_running_stats:
            count = x.numel() // x.shape[1] * len(means)
            momentum = self.momentum
            assert momentum is not None
            with torch.no_grad():
                self.num_batches_tracked.add_(1)
                self.running_mean.lerp_(mean, momentum)
                self.running_var.lerp_(variance * (count / (count - 1)), momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        shift = self.bias - mean * scale
        return (x.float() * scale.view(-1, 1, 1) + shift.view(-1, 1, 1)).to(x.dtype)


def synchronise_batchnorm(network: nn.Module) -> None:
    """Turn every batch norm in `network` into one over all ranks; parameters keep their names."""
    for module in network.modules():
        if type(module) is nn.BatchNorm2d:
            module.__class__ = SyncBatchNorm2d  # the same attributes


class _AllGather(torch.autograd.Function):
    """[...] → [ranks, ...]; each rank keeps only its own gradient, summed over all ranks."""

    @staticmethod
    def forward(ctx: FunctionCtx, own: Tensor) -> Tensor:
        parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, own)
        return torch.stack(parts)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous()
        dist.all_reduce(gradient)
        return gradient[dist.get_rank()]
