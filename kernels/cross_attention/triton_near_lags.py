"""The bias of at most NEAR lags to either side in tiles of the similarity, and its gradient, at little cost.

A tile [N, M] is seen as blocks of 8 x 8 pairs, the unit in which a tensor core's results lie in a warp's
registers. Lags of at most 8 lie in three diagonals of blocks, where the block's column minus its row is -1, 0
or 1. Every thread has the same pairs of each block, so that the bias takes a selection among three values,
and its gradient additions, without exchange between threads. The sums that remain, of 3 x 8 x 8 pairs, are
summed over lags by `sum_near_lags`.

Rows are numbered as (part, warp, half, row of 8): where WARPS warps hold 16 rows each, and then again, `half`
and the block's column numbers registers. `difference` is a block's column in the tile minus its half; the
compiler knows it.
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

from binaural.kernels.cross_attention.triton_tiles import LOG2_E

NEAR = 8


@triton.jit
def load_near_bias(lag_bias, head, longest, diagonal):
    """The bias in an 8 x 8 block of this diagonal, in units of log2; 0 beyond the longest lag: [8, 8]."""
    lag = 8 * diagonal + tl.arange(0, 8)[None, :] - tl.arange(0, 8)[:, None]
    p_lags = lag_bias + head * (2 * longest + 1) + longest + lag
    return tl.load(p_lags, mask=(lag >= -longest) & (lag <= longest), other=0.0) * LOG2_E


@triton.jit
def offsets_of_parts(first, N: tl.constexpr, M: tl.constexpr, WARPS: tl.constexpr):
    """Minus the diagonal of a block whose `difference` is 0, even numbers: [parts, WARPS].

    `first` is the tile's first column, a multiple of M.
    """
    part = tl.arange(0, N // (16 * WARPS))[:, None] * WARPS + tl.arange(0, WARPS)[None, :]
    return 2 * part - first // M * (M // 8)


@triton.jit
def differences(M: tl.constexpr):
    """Column minus half of the blocks of a tile: [1, 1, half, 1, column, 1]."""
    difference = tl.arange(0, M // 8)[None, :] - tl.arange(0, 2)[:, None]
    return difference[None, None, :, None, :, None]


@triton.jit
def add_near_bias(b_s, first, b_below, b_on, b_above, WARPS: tl.constexpr):
    """b_s [N, M] with the bias of the three diagonals, [8, 8] each, added."""
    N: tl.constexpr = b_s.shape[0]
    M: tl.constexpr = b_s.shape[1]
    PARTS: tl.constexpr = N // (16 * WARPS)
    offset = offsets_of_parts(first, N, M, WARPS)[:, :, None, None]
    b_bias = tl.zeros([PARTS, WARPS, 2, 8, M // 8, 8], tl.float32)
    for difference in tl.static_range(-1, M // 8):
        if difference % 2 == 0:  # offsets are even
            b_value = tl.where(offset == difference, b_on[None, None, :, :], 0.0)
        else:
            b_value = tl.where(offset == difference + 1, b_below[None, None, :, :], 0.0)
            b_value = tl.where(offset == difference - 1, b_above[None, None, :, :], b_value)
        b_bias = tl.where(differences(M) == difference, b_value[:, :, None, :, None, :], b_bias)
    return b_s + b_bias.reshape([N, M])


@triton.jit
def add_near_sums(b_below, b_on, b_above, b_ds, first, WARPS: tl.constexpr):
    """The three sums [WARPS, 8, 8] with those of the blocks of b_ds [N, M] on their diagonals added."""
    N: tl.constexpr = b_ds.shape[0]
    M: tl.constexpr = b_ds.shape[1]
    PARTS: tl.constexpr = N // (16 * WARPS)
    offset = offsets_of_parts(first, N, M, WARPS)[:, :, None, None]
    b_blocks = b_ds.reshape([PARTS, WARPS, 2, 8, M // 8, 8])
    b_sums_below = tl.zeros([PARTS, WARPS, 8, 8], tl.float32)
    b_sums_on = tl.zeros([PARTS, WARPS, 8, 8], tl.float32)
    b_sums_above = tl.zeros([PARTS, WARPS, 8, 8], tl.float32)
    for difference in tl.static_range(-1, M // 8):
        # -0 is what adds nothing, also for the compiler.
        b_sum = tl.sum(tl.sum(tl.where(differences(M) == difference, b_blocks, -0.0), axis=4), axis=2)
        if difference % 2 == 0:
            b_sums_on = tl.where(offset == difference, b_sum, b_sums_on)
        else:
            b_sums_below = tl.where(offset == difference + 1, b_sum, b_sums_below)
            b_sums_above = tl.where(offset == difference - 1, b_sum, b_sums_above)
    return (
        b_below + tl.sum(b_sums_below, axis=0),
        b_on + tl.sum(b_sums_on, axis=0),
        b_above + tl.sum(b_sums_above, axis=0),
    )


@triton.jit(do_not_specialize=["problems", "heads", "longest"])
def sum_near_lags(
    shares,  # [R, heads, 3, WARPS, 8, 8] float32, of backward_whole
    dlag_bias,  # [heads, 2 longest + 1] float32
    problems, heads, longest,
    WARPS: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    """The gradient of one lag of one head: the sum over problems, warps and the pairs of this lag."""
    head, index = tl.program_id(0) // (2 * longest + 1), tl.program_id(0) % (2 * longest + 1)
    row = tl.arange(0, 8)
    column = row + index - longest + 8  # in the three blocks side by side
    diagonal = column // 8
    b_sums = tl.zeros([BLOCK_R, 8], tl.float32)
    for first in range(0, problems, BLOCK_R):
        r = first + tl.arange(0, BLOCK_R)
        p_problems = shares + (r.to(tl.int64) * heads + head)[:, None] * (3 * WARPS * 64)
        for warp in tl.static_range(WARPS):
            pair = (diagonal * WARPS + warp) * 64 + row * 8 + column % 8
            b_sums += tl.load(
                p_problems + pair[None, :], mask=(r < problems)[:, None] & (diagonal < 3)[None, :], other=0.0
            )
    tl.store(dlag_bias + tl.program_id(0), tl.sum(tl.sum(b_sums, axis=1), axis=0))
