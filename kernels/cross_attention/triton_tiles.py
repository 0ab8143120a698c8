"""Building blocks of the Triton kernels of cross-attention: loads and stores of tiles, products, masks, the
lag bias.

Names: b_ marks a block in registers, with its shape beside it, and m_ a mask. Logits are in units of log2, so
that a softmax needs `exp2` alone: the factor log2(e) is part of the scale and of the bias.
"""
# mypy: disallow-untyped-defs=False

import math

import triton
import triton.language as tl

# Triton's interpreter computes with the raw bits of bfloat16: there, blocks become float32 before they are
# used.
INTERPRETED: tl.constexpr = tl.constexpr(triton.knobs.runtime.interpret)
LOG2_E: tl.constexpr = tl.constexpr(math.log2(math.e))
LN_2: tl.constexpr = tl.constexpr(math.log(2))


@triton.jit
def problem_of(problem, heads):
    """r and head of a problem: divided in 32 bits, a fifth of the instructions, then as 64 bits."""
    return (problem // heads).to(tl.int64), (problem % heads).to(tl.int64)


@triton.jit
def load_tile(
    tensor, strides, r, head, times, count, CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, FULL: tl.constexpr
):
    """Tensor [R, time, heads, channels] at `times` as [times, BLOCK_C]; zeros beyond `count` times.

    Offsets within a problem have the integer type of `times`, 32 bits where they suffice. FULL: all times
    exist.
    """
    channels = tl.arange(0, BLOCK_C)
    offsets = times[:, None] * strides[1] + channels[None, :]
    p_tile = tensor + r * strides[0] + head * strides[2] + offsets
    if FULL and CHANNELS == BLOCK_C:
        b_tile = tl.load(p_tile)
    else:
        mask = (times[:, None] >= 0) & (times[:, None] < count) & (channels[None, :] < CHANNELS)
        b_tile = tl.load(p_tile, mask=mask, other=0.0)
    return b_tile


@triton.jit
def store_tile(
    tensor, strides, r, head, times, count, b_value,
    CHANNELS: tl.constexpr, BLOCK_C: tl.constexpr, FULL: tl.constexpr,
):  # fmt: skip
    """Store b_value [times, BLOCK_C], rounded, into tensor [R, time, heads, channels] at `times`."""
    channels = tl.arange(0, BLOCK_C)
    offsets = times[:, None] * strides[1] + channels[None, :]
    p_tile = tensor + r * strides[0] + head * strides[2] + offsets
    b_value = round_to(b_value, tensor.dtype.element_ty)
    if FULL and CHANNELS == BLOCK_C:
        tl.store(p_tile, b_value)
    else:
        tl.store(p_tile, b_value, mask=(times[:, None] < count) & (channels[None, :] < CHANNELS))


@triton.jit
def load_row(tensor, times, count, FULL: tl.constexpr):
    """A float32 vector at `times`; zeros beyond `count`."""
    if FULL:
        b_row = tl.load(tensor + times)
    else:
        b_row = tl.load(tensor + times, mask=(times >= 0) & (times < count), other=0.0)
    return b_row


@triton.jit
def store_row(tensor, times, count, b_value, FULL: tl.constexpr):
    """Store b_value at `times`, unless they are `count` or more."""
    if FULL:
        tl.store(tensor + times, b_value)
    else:
        tl.store(tensor + times, b_value, mask=times < count)


@triton.jit
def round_to(b_value, dtype: tl.constexpr):
    """b_value (float32) in `dtype`; in the interpreter, rounded to bfloat16 but still of type float32."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = b_value.to(tl.int32, bitcast=True)
        nearest_even = (bits + 0x7FFF + ((bits >> 16) & 1)) & -0x10000
        return tl.where(b_value == b_value, nearest_even.to(tl.float32, bitcast=True), b_value)
    return b_value.to(dtype)


@triton.jit
def product(b_a, b_b):
    """b_a @ b_b accumulated in float32; float32 operands are not shortened to TF32."""
    if INTERPRETED:
        b_a = b_a.to(tl.float32)
        b_b = b_b.to(tl.float32)
    return tl.dot(b_a, b_b, input_precision="tf32x3")


@triton.jit
def add_product(b_sum, b_a, b_b):
    """b_sum + b_a @ b_b, accumulated in place by the tensor cores."""
    if INTERPRETED:
        b_a = b_a.to(tl.float32)
        b_b = b_b.to(tl.float32)
    return tl.dot(b_a, b_b, b_sum, input_precision="tf32x3")


@triton.jit
def logits(b_a, b_b, b_bias, scale):
    """scale · b_a b_bᵀ + b_bias [a times, b times]; `scale` and b_bias (or None) in units of log2."""
    b_s = product(b_a, tl.trans(b_b)) * scale
    if b_bias is not None:
        b_s += b_bias
    return b_s


@triton.jit
def pairs(a_times, b_times, a_count, b_count, lag, max_lag):
    """Mask [a times, b times] of the pairs that exist and may match."""
    m_a = (a_times >= 0) & (a_times < a_count)
    m_b = (b_times >= 0) & (b_times < b_count)
    m_pairs = m_a[:, None] & m_b[None, :]
    if max_lag is not None:
        m_pairs &= (lag >= -max_lag) & (lag <= max_lag)
    return m_pairs


@triton.jit
def finite(b_value):
    """b_value with 0 in place of -inf: the maximum or lse of a query that has no key."""
    return tl.where(b_value == float("-inf"), 0.0, b_value)


@triton.jit
def normaliser(b_max, b_sum):
    """Reciprocal of the softmax's denominator, 0 for a query that has no key, and the natural logarithm, lse.

    b_max: what was subtracted from the logits; b_sum: the sum of their powers of two.
    """
    b_inverse = tl.where(b_sum == 0.0, 0.0, 1.0 / b_sum)
    b_lse = tl.where(b_sum == 0.0, float("-inf"), b_max * LN_2 + tl.log2(b_sum) * LN_2)
    return b_inverse, b_lse


@triton.jit
def one_per_thread(b_row):
    """b_row, but not in the layout of a product's columns, where 32 threads have the same 8 elements."""
    return tl.gather(b_row, tl.arange(0, b_row.shape[0]), axis=0)


@triton.jit
def largest_square_norm(b_tile):
    """Largest squared norm of the rows of b_tile."""
    b_wide = b_tile.to(tl.float32)
    return tl.max(tl.sum(b_wide * b_wide, axis=1), axis=0)


@triton.jit
def largest_bias(lag_bias, head, longest, REACH: tl.constexpr):
    """Largest magnitude of the bias of lags -REACH to REACH - 1, in units of log2; -inf does not count."""
    lag = tl.arange(0, 2 * REACH) - REACH
    p_lags = lag_bias + head * (2 * longest + 1) + longest + lag
    b_lags = tl.load(p_lags, mask=(lag >= -longest) & (lag <= longest), other=0.0)
    return tl.max(tl.abs(finite(b_lags)), axis=0) * LOG2_E


@triton.jit
def bias_tile(lag_bias, head, longest, first, SIGN: tl.constexpr, A: tl.constexpr, B: tl.constexpr):
    """The bias of the lags SIGN · (first + b - a), for a < A and b < B, in units of log2: [A, B].

    Call it only with a bias: a function of Triton 3.6 cannot return None.
    """
    # A tile has A + B - 1 lags. They are loaded once and spread over the tile in registers.
    SIZE: tl.constexpr = 2 * (A if A > B else B)
    lag = SIGN * (first - (A - 1) + tl.arange(0, SIZE))
    m_bias = (lag >= -longest) & (lag <= longest)
    p_lags = lag_bias + head * (2 * longest + 1) + longest + lag
    b_lags = tl.load(p_lags, mask=m_bias, other=0.0) * LOG2_E
    index = tl.arange(0, B)[None, :] - tl.arange(0, A)[:, None] + (A - 1)
    return tl.gather(b_lags, index.reshape([A * B]), axis=0).reshape([A, B])


@triton.jit
def sum_lags(b_ds, first, BLOCK_L: tl.constexpr):
    """Sums of b_ds [a times, b times] over its diagonals b - a = first + (0 .. BLOCK_L): [BLOCK_L]."""
    a = tl.arange(0, b_ds.shape[0])[:, None]
    b = a + first + tl.arange(0, BLOCK_L)[None, :]
    m_inside = (b >= 0) & (b < b_ds.shape[1])
    # Row a turned left by a: a diagonal becomes a column.
    b_turned = tl.gather(b_ds, tl.where(m_inside, b, 0), axis=1)
    return tl.sum(tl.where(m_inside, b_turned, 0.0), axis=0)
