"""Use the cross-attention operator in another model: two feature sequences attend to each other.

One similarity matrix serves both directions and is never stored. Run from the repository with
`python examples/attention_in_your_model.py`.
"""

import torch
from torch import Tensor, nn

from binaural.kernels import cross_attention


class MutualAttention(nn.Module):
    """[B, N, C] and [B, M, C] → the same shapes, each with what it attends to in the other added."""

    def __init__(self, channels: int, heads: int, max_lag: int | None = None) -> None:
        super().__init__()
        self.heads, self.max_lag = heads, max_lag
        self.query = nn.Linear(channels, channels)
        self.value = nn.Linear(channels, channels)

    def forward(self, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
        q_left, q_right = (self.query(x).unflatten(-1, (self.heads, -1)) for x in (left, right))
        v_left, v_right = (self.value(x).unflatten(-1, (self.heads, -1)) for x in (left, right))
        o_left, o_right = cross_attention(q_left, q_right, v_left, v_right, max_lag=self.max_lag)
        return left + o_left.flatten(-2), right + o_right.flatten(-2)


model = MutualAttention(channels=64, heads=4, max_lag=16)
left, right = torch.randn(8, 100, 64), torch.randn(8, 120, 64)
out_left, out_right = model(left, right)
(out_left.square().mean() + out_right.square().mean()).backward()
print(f"outputs {list(out_left.shape)} and {list(out_right.shape)}")
print(f"gradient of the query weights: {model.query.weight.grad.norm():.4f}")
