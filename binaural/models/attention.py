"""Cross-attention between the feature maps of the two ears."""

import itertools
import math
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from binaural.kernels import cross_attention, packed_cross_attention
from binaural.kernels.cross_attention import unpack
from binaural.models.ear_pairs import as_one_batch, each_ear, split_ears, tie_weights
from binaural.models.fused_layers import is_plain

Scope = Literal["time", "plane"]
Similarity = Literal["shared", "separate"]

_LARGEST_HEAD = 64  # channels; a level with more than heads · 64 channels gets more heads
_PLANE_REDUCTION = 8  # query channels on the dense plane: C / 8, as in self-attention GANs


class BinauralCrossAttention(nn.Module):
    """Cross-attention between the ears: each ear attends to matching time steps of the other.

    Both maps are normalised over their channels (layer norm, Ba et al., 2016) and projected by a 1 × 1
    convolution to queries and values; `cross_attention` compares the queries of the two ears. The output of
    an ear is added to its own features with a gain that starts at 0 (Zhang et al., "Self-Attention
    GANs", 2019), so that at first the network is the one without attention.

    The maps stay channels-last: the projections are matrix products over the last dimension of the
    [B, H, W, C] view, and the kernel takes their packed output in place.

    Args:
        channels: C of either ear's map.
        heads: number of heads with scope "time"; more where a head would have over 64 channels.
        scope: "time" matches time steps within a frequency row, R = B · H problems of W × W pairs;
            "plane" matches every cell with every cell, one problem of (H · W)² pairs per sample, with one
            head of C / 8 query channels.
        similarity: "shared" uses one matrix for both directions; "separate" has keys of its own for each.
        max_lag: pairs of time steps further apart than this never match (scope "time"); None for no limit.
        lag_bias: learn a bias for each lag within ± this many steps (scope "time"); None for none.
        symmetric: both ears have the same weights, and a lag has the same bias in either direction: swapped
            ears then swap the outputs. Both ears may then be given in one batch, which saves half the calls,
            and on a CPU copies where they were computed in one batch.
        backend: of `binaural.kernels.cross_attention`.

    Raises:
        ValueError: `channels` not divisible by the number of heads, an unknown scope or similarity, lags
            with scope "plane".
    """

    def __init__(
        self,
        channels: int,
        heads: int = 4,
        *,
        scope: Scope = "time",
        similarity: Similarity = "shared",
        max_lag: int | None = None,
        lag_bias: int | None = 8,
        symmetric: bool = False,
        backend: str | None = None,
    ) -> None:
        super().__init__()
        if scope not in get_args(Scope):
            raise ValueError(f"scope must be one of {get_args(Scope)}, got {scope!r}")
        if similarity not in get_args(Similarity):
            raise ValueError(f"similarity must be one of {get_args(Similarity)}, got {similarity!r}")
        if scope == "plane":
            if max_lag is not None:
                raise ValueError(
                    f"max_lag needs scope 'time': on a plane a lag has no meaning; got {max_lag}"
                )
            heads, query_channels, lag_bias = 1, max(channels // _PLANE_REDUCTION, 1), None
        else:
            heads = max(heads, math.ceil(channels / _LARGEST_HEAD))
            query_channels = channels
            if channels % heads:
                raise ValueError(f"channels must be divisible by heads, got {channels} and {heads}")
        self.heads = heads
        self.scope = scope
        self.max_lag = max_lag
        self.backend = backend
        # Per ear and in this order: queries, values, and with separate similarity keys.
        self.sizes = [query_channels, channels] + ([query_channels] if similarity == "separate" else [])
        self.norm_left = nn.LayerNorm(channels)
        self.norm_right = nn.LayerNorm(channels)
        self.project_left = nn.Linear(channels, sum(self.sizes))
        self.project_right = nn.Linear(channels, sum(self.sizes))
        self.gain_left = nn.Parameter(torch.zeros(channels))
        self.gain_right = nn.Parameter(torch.zeros(channels))
        self.symmetric = symmetric
        if symmetric:
            tie_weights(self, "norm_right", "norm_left")
            tie_weights(self, "project_right", "project_left")
            del self.gain_right
        # Of lags -L to L; of a symmetric one of lags 0 to L.
        lags = None if lag_bias is None else lag_bias + 1 if symmetric else 2 * lag_bias + 1
        self.lag_bias = None if lags is None else nn.Parameter(torch.zeros(heads, lags))

    def forward(self, *ears: Tensor) -> tuple[Tensor, ...]:
        """left, right [B, C, H, W], channels-last for speed → the same, with the attention's output added.

        Of a symmetric one, [2 B, C, H, W] with the left ear's maps first → the same.
        """
        options: dict[str, Any] = {
            "max_lag": self.max_lag,
            "lag_bias": self.bias_of_lags(),
            "backend": self.backend,
        }
        if self.symmetric:
            both = as_one_batch(ears)
            packed = self._project(both, self.norm_left, self.project_left, self.gain_left)
            both = self._add(both, packed_cross_attention(packed, self.heads, *self.sizes[:2], **options))
            return (both,) if len(ears) == 1 else split_ears(both)
        left, right = each_ear(ears)
        o_left, o_right = cross_attention(*itertools.chain(*self._project_ears(left, right)), **options)
        return self._add(left, o_left), self._add(right, o_right)

    @property
    def gains(self) -> tuple[Tensor, Tensor]:
        """Gains of the attention's output at the left and at the right ear, [C] each."""
        return self.gain_left, self.gain_left if self.symmetric else self.gain_right

    def bias_of_lags(self) -> Tensor | None:
        """The learned bias of lags -L to L, [heads, 2 L + 1]; None where there is none."""
        if self.lag_bias is None or not self.symmetric:
            return self.lag_bias
        return torch.cat([self.lag_bias[:, 1:].flip(-1), self.lag_bias], dim=-1)

    @torch.no_grad()
    def weights(self, *ears: Tensor) -> tuple[Tensor, Tensor]:
        """The softmax weights of all pairs of time steps, which the kernels never store.

        Args:
            ears: as in `forward`.

        Returns:
            [B · H, heads, time left, time right] twice: left attends to right, where the weights of a left
            step sum to 1 over the right steps, and right attends to left, where those of a right step do.

        Raises:
            ValueError: the scope is not "time".
        """
        if self.scope != "time":
            raise ValueError(f"weights by time step need scope 'time', this attention has {self.scope!r}")
        (q_left, q_right), _, *keys = self._project_ears(*each_ear(ears))
        rows, time = q_left.shape[:2]
        # With identity matrices as values, the output is the softmax matrix.
        identity = torch.eye(time, device=q_left.device, dtype=q_left.dtype)[:, None]
        identity = identity.expand(rows, time, self.heads, time)
        o_left, o_right = cross_attention(
            q_left,
            q_right,
            identity,
            identity,
            *itertools.chain(*keys),
            max_lag=self.max_lag,
            lag_bias=self.bias_of_lags(),
            backend="reference",
        )
        return o_left.permute(0, 2, 1, 3), o_right.permute(0, 2, 3, 1)

    def _project_ears(self, left: Tensor, right: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Queries, values (and keys), [R, time, heads, channels], of left and right."""
        gain_left, gain_right = self.gains
        # An ear attends to the other ear's values, which are therefore multiplied by its own gain.
        of_left = self._project(left, self.norm_left, self.project_left, gain_right)
        of_right = self._project(right, self.norm_right, self.project_right, gain_left)
        parts = (unpack(packed, self.heads, *self.sizes[:2]) for packed in (of_left, of_right))
        return list(zip(*parts, strict=True))

    def _project(self, x: Tensor, norm: nn.Module, project: nn.Module, gain: Tensor) -> Tensor:
        """[B, C, H, W] → queries, values times `gain` (and keys) side by side, [R, time, all channels]."""
        batch, _, height, width = x.shape
        normalised = norm(x.permute(0, 2, 3, 1))
        ones = torch.ones_like(gain[:1])
        scale = torch.cat([ones.expand(self.sizes[0]), gain, *(ones.expand(size) for size in self.sizes[2:])])
        if is_plain(project, nn.Linear):
            assert isinstance(project, nn.Linear)
            # The gain goes into weight and bias, which are smaller than the maps. On a CPU a 1 × 1
            # convolution is faster than the same matrix product.
            weight = (project.weight * scale[:, None])[:, :, None, None]
            packed = F.conv2d(normalised.permute(0, 3, 1, 2), weight, project.bias * scale).permute(
                0, 2, 3, 1
            )
        else:
            packed = project(normalised) * scale
        rows = (batch * height, width) if self.scope == "time" else (batch, height * width)
        return packed.reshape(*rows, sum(self.sizes))

    @staticmethod
    def _add(x: Tensor, output: Tensor) -> Tensor:
        """x [B, C, H, W] + output [R, time, heads, channels], channels-last."""
        batch, channels, height, width = x.shape
        return x + output.reshape(batch, height, width, channels).permute(0, 3, 1, 2)
