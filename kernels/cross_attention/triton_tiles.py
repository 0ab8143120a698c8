"""What the Triton kernels of cross-attention share: tiles in memory, products, similarity, the bias gradient.

In all of them b_ marks a block on the chip, with its shape beside it, and m_ a mask.
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

# The interpreter computes with bfloat16's raw bits: there, blocks are widened before they are used.
INTERPRETED: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def load_tile(tensor, strides, r, head, times, count, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr):
    """tensor [R, time, heads, channels] at `times` as [times, BLOCK_C]; zeros beyond `count` times."""
    channels = tl.arange(0, BLOCK_C)
    mask = (times[:, None] >= 0) & (times[:, None] < count) & (channels[None, :] < CHANNELS)
    # r and times are multiplied in 64 bits: a tensor may have more than 2^31 elements
    offsets = times.to(tl.int64)[:, None] * strides[1] + channels[None, :]
    return tl.load(tensor + r * strides[0] + head * strides[2] + offsets, mask=mask, other=0.0)


@triton.jit
def store_tile(
    tensor, strides, r, head, times, count, b_value, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr
):
    """b_value [times, BLOCK_C] into tensor [R, time, heads, channels] at `times`, rounded to its dtype."""
    channels = tl.arange(0, BLOCK_C)
    mask = (times[:, None] < count) & (channels[None, :] < CHANNELS)
    offsets = times.to(tl.int64)[:, None] * strides[1] + channels[None, :]
    b_value = round_to(b_value, tensor.dtype.element_ty)
    tl.store(tensor + r * strides[0] + head * strides[2] + offsets, b_value, mask=mask)


@triton.jit
def round_to(b_value, dtype: tl.constexpr):
    """b_value (float32) in `dtype`; where interpreted, rounded to it but still float32 for bfloat16."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = b_value.to(tl.int32, bitcast=True)
        nearest_even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        return nearest_even.to(tl.float32, bitcast=True)
    return b_value.to(dtype)


@triton.jit
def product(b_a, b_b):
    """b_a @ b_b accumulated in float32; float32 operands are not shortened to TF32."""
    if INTERPRETED:
        b_a = b_a.to(tl.float32)
        b_b = b_b.to(tl.float32)
    return tl.dot(b_a, b_b, input_precision="tf32x3")


@triton.jit
def similarity(b_a, b_b, b_bias, m_pairs, scale):
    """S = scale · b_a b_bᵀ + b_bias, -inf outside m_pairs: [a times, b times]."""
    b_s = product(b_a, tl.trans(b_b)) * scale
    if b_bias is not None:
        b_s += b_bias
    return tl.where(m_pairs, b_s, float("-inf"))


@triton.jit
def bias_tile(lag_bias, head, longest, first, SIGN: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    """The bias of the lags SIGN · (first + b - a), for a < A and b < B: [A, B].

    For calls with a bias alone: a function of Triton 3.6 cannot return None.
    """
    # A tile has A + B - 1 lags. Read once, they are spread over it on the chip.
    SIZE: tl.constexpr = 2 * (A if A > B else B)
    lag = SIGN * (first - (A - 1) + tl.arange(0, SIZE))
    m_bias = (lag >= -longest) & (lag <= longest)
    b_lags = tl.load(lag_bias + head * (2 * longest + 1) + longest + lag, mask=m_bias, other=0.0)
    index = tl.arange(0, B)[None, :] - tl.arange(0, A)[:, None] + (A - 1)
    return tl.gather(b_lags, index.reshape([A * B]), axis=0).reshape([A, B])


@triton.jit
def pairs(a_times, b_times, a_count, b_count, lag, max_lag):
    """Which of the pairs [a times, b times] exist and may match."""
    m_a = (a_times >= 0) & (a_times < a_count)
    m_b = (b_times >= 0) & (b_times < b_count)
    m_pairs = m_a[:, None] & m_b[None, :]
    if max_lag is not None:
        m_pairs &= (lag >= -max_lag) & (lag <= max_lag)
    return m_pairs


@triton.jit
def finite(b_value):
    """b_value with 0 for -inf, the maximum and the lse of a query that has no partner."""
    return tl.where(b_value == float("-inf"), 0.0, b_value)


@triton.jit
def normaliser(b_max, b_sum):
    """The softmax's denominator, 1 for a query that has no partner, and lse."""
    b_sum_or_one = tl.where(b_sum == 0.0, 1.0, b_sum)
    return b_sum_or_one, tl.where(b_sum == 0.0, float("-inf"), b_max + tl.log(b_sum_or_one))


@triton.jit
def softmax_again(b_s, b_lse, axis: tl.constexpr):
    """The softmax of whole rows (axis 1) or columns (axis 0) of b_s, from the lse of the forward pass.

    At logits of 1e4 an lse in float32 is off by 1e-3; summing once more makes up for it.
    """
    b_p = tl.exp(b_s - tl.expand_dims(finite(b_lse), axis))
    b_sum = tl.sum(b_p, axis=axis)
    return b_p / tl.expand_dims(tl.where(b_sum == 0.0, 1.0, b_sum), axis)


@triton.jit
def sum_lags(b_ds, first, BLOCK_L: tl.constexpr):
    """Sums of b_ds [a times, b times] over its diagonals b - a = first + (0 .. BLOCK_L): [BLOCK_L]."""
    a = tl.arange(0, b_ds.shape[0])[:, None]
    b = a + first + tl.arange(0, BLOCK_L)[None, :]
    m_inside = (b >= 0) & (b < b_ds.shape[1])
    # Row a turned left by a: what lay on a diagonal then lies in a column.
    b_turned = tl.gather(b_ds, tl.where(m_inside, b, 0), axis=1)
    return tl.sum(tl.where(m_inside, b_turned, 0.0), axis=0)
