"""What a network's attention has matched between the ears: lags and level differences.

A lag is the right ear's time step minus the left ear's: positive where the sound reached the left ear first,
so was on the left, whichever ear is reading.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from binaural.models.attention import BinauralCrossAttention
from binaural.models.binaural_attention import BinauralAttentionDepthNet
from binaural.models.pretrained import Pretrained


@dataclass(frozen=True)
class Matching:
    """The attention of one level on one recording.

    Attributes:
        left_reads: [H, heads, W, W], weights of left step i (third) reading right step j (fourth), which sum
            to 1 over j. Row 0 of H is the lowest frequency.
        right_reads: the same indices, right reading left, which sum to 1 over i.
        max_lag: steps beyond which nothing matches; None for no limit.
    """

    left_reads: Tensor
    right_reads: Tensor
    max_lag: int | None = None

    def without_preference(self) -> "Matching":
        """The attention that reads all steps it may read alike."""
        lag = lags(self.left_reads.shape[-1])
        allowed = torch.ones_like(lag) if self.max_lag is None else (lag.abs() <= self.max_lag).long()
        left, right = allowed / allowed.sum(1, keepdim=True), allowed / allowed.sum(0, keepdim=True)
        return Matching(left.expand_as(self.left_reads), right.expand_as(self.right_reads), self.max_lag)

    def lag_distributions(self) -> tuple[Tensor, Tensor]:
        """Share of the weights at each lag −(W − 1) to W − 1, of each frequency row, of either reader.

        [H, 2 W − 1] twice (left reading, right reading), each row with the sum 1: weights summed over time,
        heads averaged.
        """
        return _by_lag(self.left_reads), _by_lag(self.right_reads)

    def expected_lags(self) -> tuple[Tensor, Tensor]:
        """Mean lag of what each step reads, in steps: [H, W] twice (left reading, right reading)."""
        lag = lags(self.left_reads.shape[-1])
        left = (self.left_reads * lag).sum(-1).mean(1)
        right = (self.right_reads * lag).sum(-2).mean(1)
        return left, right

    def level_differences(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Left minus right at matched steps, in decibels: [H, W] twice (left reading, right reading).

        Args:
            left, right: levels [H, W] in decibels. The reader's own stands against the mean, by the weights,
                of what it reads.
        """
        read_right = torch.einsum("hkij,hj->hki", self.left_reads, right).mean(1)
        read_left = torch.einsum("hkij,hi->hkj", self.right_reads, left).mean(1)
        return left - read_right, read_left - right


def attention_levels(network: Pretrained) -> list[int]:
    """The levels, finest first, at which `network` matches the ears by attention."""
    if not isinstance(network, BinauralAttentionDepthNet):
        return []
    levels = network.attention.items()
    return sorted(int(level) for level, module in levels if isinstance(module, BinauralCrossAttention))


def attention_at(network: Pretrained, level: int) -> BinauralCrossAttention:
    """The attention of `network` at `level`.

    Raises:
        ValueError: it has none there.
    """
    levels = attention_levels(network)
    if level not in levels:
        found = ", ".join(map(str, levels)) or "none"
        raise ValueError(
            f"the network does not match the ears by attention at level {level}; its levels: {found}"
        )
    assert isinstance(network, BinauralAttentionDepthNet)
    attention = network.attention[str(level)]
    assert isinstance(attention, BinauralCrossAttention)
    return attention


def match(network: Pretrained, heard: Tensor, level: int) -> Matching:
    """The attention of `network` at `level` on one input [C, S, S].

    Raises:
        ValueError: there is no attention at that level, or it does not run along time.
    """
    attention = attention_at(network, level)
    ears: list[tuple[Tensor, ...]] = []
    hook = attention.register_forward_pre_hook(lambda _, inputs: ears.append(inputs))
    try:
        with torch.no_grad():
            network(heard[None].to(next(network.parameters()).device))
    finally:
        hook.remove()
    left_reads, right_reads = attention.weights(*ears[0])
    return Matching(left_reads.cpu(), right_reads.cpu(), attention.max_lag)


def lags(steps: int) -> Tensor:
    """j − i of all pairs, [steps, steps]."""
    return torch.arange(steps)[None, :] - torch.arange(steps)[:, None]


def levels_of_cells(decibels: Tensor, stride: int) -> Tensor:
    """Mean power in decibels of the cells that a level sees: [..., S, S] → [..., S / stride, S / stride]."""
    return 10 * torch.log10(F.avg_pool2d(10 ** (decibels / 10), stride))


def _by_lag(weights: Tensor) -> Tensor:
    rows, _, steps, _ = weights.shape
    shares = weights.new_zeros(rows, 2 * steps - 1)
    index = (lags(steps) + steps - 1).flatten().expand(rows, -1)
    return shares.scatter_add(1, index, weights.mean(1).flatten(1)) / steps
