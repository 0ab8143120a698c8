"""Cross-attention at the shapes of the network's levels, and on the dense plane."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.case import Case
from binaural.kernels import cross_attention
from binaural.kernels.cross_attention import reference
from binaural.kernels.dispatch.backends import BACKENDS, WHY_UNAVAILABLE

# R (batch x frequency rows), N = M (time steps), heads, d, dv: levels 2 to 5 of a 256 x 256 input at batch 8
# and 64 base channels; then the dense plane, of 64 x 64 and of 128 x 128 pixels.
SHAPES = (
    (512, 128, 4, 32, 32),
    (256, 64, 4, 64, 64),
    (128, 32, 8, 64, 64),
    (64, 16, 8, 64, 64),
    (1, 4096, 1, 16, 128),
    (1, 16384, 1, 16, 128),
)
# Implementations that store the matrix are left out where it is larger.
LARGEST_MATRIX = 1 << 26  # elements


def cases(device: str, dtype: torch.dtype, compiled: bool) -> Iterator[Case]:
    """The inputs are channels-last projections, split into heads by views, as in the network; the outputs
    are channels-last again. So an implementation that needs another layout includes the copies."""
    for r, n, heads, d, dv in SHAPES:
        projections = [
            torch.randn(r, n, heads * width, device=device, dtype=dtype).requires_grad_()
            for width in (d, d, dv, dv)
        ]
        grads = [torch.randn(r, n, heads * dv, device=device, dtype=dtype) for _ in range(2)]
        call = partial(_from_projections, projections, heads)
        implementations: dict[str, Callable[[], Sequence[Tensor]]] = {
            backend: partial(call, partial(cross_attention, backend=backend))
            for backend in BACKENDS[1:]
            if WHY_UNAVAILABLE[backend, "cross_attention"] is None and (backend == "cpp") == (device == "cpu")
        }
        implementations["2 x SDPA"] = partial(call, _two_sdpa_calls)
        scores = r * heads * n * n
        if scores <= LARGEST_MATRIX:
            naive = partial(reference, scale=d**-0.5)
            implementations["naive"] = partial(call, naive)
            if compiled:
                implementations["compiled naive"] = partial(call, torch.compile(naive, dynamic=False))
        if compiled and device == "cuda":
            implementations["2 x FlexAttention"] = partial(call, _flex_attention())
        operand = r * n * heads * projections[0].element_size()
        yield Case(
            operation="cross_attention",
            size=f"{r} x {n} x {heads} heads, d {d}, dv {dv}",
            leaves=projections,
            grads=grads,
            implementations=implementations,
            flops=count_flops(scores, d, dv),
            traffic=(operand * (2.0 * d + 4 * dv), operand * (4.0 * d + 8 * dv)),
        )


def count_flops(scores: int, d: int, dv: int) -> tuple[float, float]:
    """Forward and backward with shared similarity: products of inner size d and dv, for S, both outputs, and
    their gradients.

    Args:
        scores: pairs of time steps, over all problems and heads.
        d, dv: channels of a head's queries and values.
    """
    return 2.0 * scores * (d + 2 * dv), 2.0 * scores * (3 * d + 4 * dv)


def _from_projections(
    projections: Sequence[Tensor], heads: int, attention: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    o_left, o_right = attention(*(p.unflatten(-1, (heads, -1)) for p in projections))
    return o_left.flatten(2), o_right.flatten(2)


def _two_sdpa_calls(
    q_left: Tensor, q_right: Tensor, v_left: Tensor, v_right: Tensor
) -> tuple[Tensor, Tensor]:
    ql, qr, vl, vr = (t.transpose(1, 2) for t in (q_left, q_right, v_left, v_right))
    o_left = F.scaled_dot_product_attention(ql, qr, vr)
    o_right = F.scaled_dot_product_attention(qr, ql, vl)
    return o_left.transpose(1, 2), o_right.transpose(1, 2)


def _flex_attention() -> Callable[..., tuple[Tensor, Tensor]]:
    from torch.nn.attention.flex_attention import flex_attention

    flex = torch.compile(flex_attention, dynamic=False)

    def two_calls(q_left: Tensor, q_right: Tensor, v_left: Tensor, v_right: Tensor) -> tuple[Tensor, Tensor]:
        ql, qr, vl, vr = (t.transpose(1, 2) for t in (q_left, q_right, v_left, v_right))
        return flex(ql, qr, vr).transpose(1, 2), flex(qr, ql, vl).transpose(1, 2)

    return two_calls
