"""The attention weights between the ears of one recording, and the lags and level differences they imply.

A lag is the right ear's time step minus the left ear's, for both directions of attention: it is positive
where the sound reached the left ear first, which means that it came from the left.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from binaural.models.attention import BinauralCrossAttention
from binaural.models.binaural_attention import BinauralAttentionDepthNet
from binaural.models.pretrained import Pretrained


@dataclass(frozen=True)
class AttentionWeights:
    """The attention weights of one level for one recording.

    Attributes:
        left_attends: [H, heads, W, W], weights of left step i (third) on right step j (fourth), which
            sum to 1 over j. Row 0 of H is the lowest frequency.
        right_attends: with the same indices, weights of right step j on left step i, which sum to 1 over i.
        max_lag: pairs with a larger lag are masked; None for no limit.
    """

    left_attends: Tensor
    right_attends: Tensor
    max_lag: int | None = None

    def without_preference(self) -> "AttentionWeights":
        """Uniform weights over all steps that are not masked."""
        lag = lags(self.left_attends.shape[-1])
        allowed = torch.ones_like(lag) if self.max_lag is None else (lag.abs() <= self.max_lag).long()
        left, right = allowed / allowed.sum(1, keepdim=True), allowed / allowed.sum(0, keepdim=True)
        return AttentionWeights(
            left.expand_as(self.left_attends), right.expand_as(self.right_attends), self.max_lag
        )

    def lag_distributions(self) -> tuple[Tensor, Tensor]:
        """Share of the weights at each lag −(W − 1) to W − 1, by frequency row, for both directions.

        Returns:
            [H, 2 W − 1] twice (left attends, right attends): weights summed over time, averaged over heads;
            each row sums to 1.
        """
        return _by_lag(self.left_attends), _by_lag(self.right_attends)

    def expected_lags(self) -> tuple[Tensor, Tensor]:
        """Weighted mean lag of each time step, in steps: [H, W] twice (left attends, right attends)."""
        lag = lags(self.left_attends.shape[-1])
        left = (self.left_attends * lag).sum(-1).mean(1)
        right = (self.right_attends * lag).sum(-2).mean(1)
        return left, right

    def level_differences(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        """Left minus right level at matched steps, in decibels: [H, W] twice (left attends, right attends).

        Args:
            left, right: levels [H, W] in decibels. An ear's own level is compared with the mean level, by the
                attention weights, of the other ear.
        """
        matched_right = torch.einsum("hkij,hj->hki", self.left_attends, right).mean(1)
        matched_left = torch.einsum("hkij,hi->hkj", self.right_attends, left).mean(1)
        return left - matched_right, matched_left - right


def attention_levels(network: Pretrained) -> list[int]:
    """The levels, finest first, at which `network` has cross-attention."""
    if not isinstance(network, BinauralAttentionDepthNet):
        return []
    levels = network.attention.items()
    return sorted(int(level) for level, module in levels if isinstance(module, BinauralCrossAttention))


def attention_at(network: Pretrained, level: int) -> BinauralCrossAttention:
    """The cross-attention of `network` at `level`.

    Raises:
        ValueError: there is none at that level.
    """
    levels = attention_levels(network)
    if level not in levels:
        found = ", ".join(map(str, levels)) or "none"
        raise ValueError(f"the network has no attention at level {level}; levels with attention: {found}")
    assert isinstance(network, BinauralAttentionDepthNet)
    attention = network.attention[str(level)]
    assert isinstance(attention, BinauralCrossAttention)
    return attention


def match(network: Pretrained, inputs: Tensor, level: int) -> AttentionWeights:
    """The attention weights of `network` at `level` for one input [C, S, S].

    Raises:
        ValueError: there is no attention at that level, or it is not along time.
    """
    attention = attention_at(network, level)
    ears: list[tuple[Tensor, ...]] = []
    hook = attention.register_forward_pre_hook(lambda _, maps: ears.append(maps))
    try:
        with torch.no_grad():
            network(inputs[None].to(next(network.parameters()).device))
    finally:
        hook.remove()
    left_attends, right_attends = attention.weights(*ears[0])
    return AttentionWeights(left_attends.cpu(), right_attends.cpu(), attention.max_lag)


def lags(steps: int) -> Tensor:
    """j − i of all pairs, [steps, steps]."""
    return torch.arange(steps)[None, :] - torch.arange(steps)[:, None]


def levels_of_cells(decibels: Tensor, stride: int) -> Tensor:
    """Mean power, in decibels, of stride × stride cells: [..., S, S] → [..., S / stride, S / stride]."""
    return 10 * torch.log10(F.avg_pool2d(10 ** (decibels / 10), stride))


def _by_lag(weights: Tensor) -> Tensor:
    rows, _, steps, _ = weights.shape
    shares = weights.new_zeros(rows, 2 * steps - 1)
    index = (lags(steps) + steps - 1).flatten().expand(rows, -1)
    return shares.scatter_add(1, index, weights.mean(1).flatten(1)) / steps
