"""Triton kernels for problems that fit on the chip whole: one program is one (r, head).

The similarity is computed once for both directions: 3 matrix products forward and 7 backward (4 and 10 with
separate keys). Every operand is read once and every result is written once. A program goes over the right
steps BLOCK_M at a time, so that its tiles fit into the registers: it sees columns of S whole, and rows in
parts, whose softmax it keeps as in Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

from binaural.kernels.cross_attention.triton_near_lags import add_near_bias, add_near_sums, load_near_bias
from binaural.kernels.cross_attention.triton_tiles import (
    LOG2_E,
    add_product,
    bias_tile,
    finite,
    largest_bias,
    largest_square_norm,
    load_row,
    load_tile,
    logits,
    normaliser,
    one_per_thread,
    pairs,
    problem_of,
    product,
    round_to,
    store_row,
    store_tile,
    sum_lags,
)


@triton.jit
def biased_logits(
    b_left, b_right, lag_bias, head, longest, first, b_below, b_on, b_above, m_pairs, scale,
    NEAR: tl.constexpr, MASKED: tl.constexpr, WARPS: tl.constexpr,
):  # fmt: skip
    """The logits [N, M] of all left steps and right steps from `first`; -inf outside m_pairs if MASKED."""
    b_s = logits(b_left, b_right, None, scale)
    if NEAR:
        b_s = add_near_bias(b_s, first, b_below, b_on, b_above, WARPS)
    elif lag_bias is not None:
        b_s += bias_tile(lag_bias, head, longest, first, 1, b_s.shape[0], b_s.shape[1])
    if MASKED:
        b_s = tl.where(m_pairs, b_s, float("-inf"))
    return b_s


@triton.jit(do_not_specialize=["n", "m", "heads", "longest", "max_lag", "problems"])
def forward_whole(
    q_left, q_left_strides,  # [R, N, heads, D]
    q_right, q_right_strides,  # [R, M, heads, D]
    v_left, v_left_strides,  # [R, N, heads, DV]
    v_right, v_right_strides,  # [R, M, heads, DV]
    k_left, k_left_strides,  # [R, N, heads, D] or None
    k_right, k_right_strides,  # [R, M, heads, D] or None
    lag_bias,  # [heads, 2 longest + 1] float32, or None
    o_left, o_left_strides,  # [R, N, heads, DV]
    o_right, o_right_strides,  # [R, M, heads, DV]
    lse_left,  # [R, heads, N] float32
    lse_right,  # [R, heads, M] float32
    scale, n, m, heads, longest, max_lag,
    problems,  # read by the tuner alone
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    FULL: tl.constexpr,  # N is BLOCK_N, and M a multiple of BLOCK_M
    NEAR: tl.constexpr,  # there is a bias, of at most triton_near_lags.NEAR lags to either side
    WARPS: tl.constexpr,  # how NEAR takes the rows to be divided among the warps
    SAFE_RANGE: tl.constexpr,  # largest logit whose power of two may be summed and rounded without a shift
):  # fmt: skip
    scale = tl.cast(scale, tl.float32) * LOG2_E
    MASKED: tl.constexpr = not FULL or max_lag is not None
    # Two softmaxes at a time take twice the registers: the second loop takes half as many columns.
    NARROW_M: tl.constexpr = BLOCK_M // 2 if BLOCK_M > 16 and k_left is None else BLOCK_M
    r, head = problem_of(tl.program_id(0), heads)
    program = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK_N)
    b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D, FULL)  # [N, D]
    b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV, FULL)  # [N, DV]
    if k_left is not None:
        b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D, FULL)  # [N, D]
    b_below, b_on, b_above = None, None, None
    if NEAR:
        b_below = load_near_bias(lag_bias, head, longest, -1)
        b_on = load_near_bias(lag_bias, head, longest, 0)
        b_above = load_near_bias(lag_bias, head, longest, 1)

    # One exponential serves both directions, E = 2^S, if no |S| can be so large that a sum of E overflows or
    # a whole row or column of E vanishes. |S| is at most the product of the norms (Cauchy and Schwarz), plus
    # the bias.
    shared_steps = 0  # right steps that the first of the two loops takes: all or none
    first_max = float(
        "-inf"
    )  # what the rows' sums have subtracted from the logits when the second loop begins
    if k_left is None:
        b_norm = 0.0
        for first in range(0, m, BLOCK_M):
            j = first + tl.arange(0, BLOCK_M)
            b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D, FULL)  # [M, D]
            b_norm = tl.maximum(b_norm, largest_square_norm(b_qr))
        b_bound = tl.sqrt(b_norm * largest_square_norm(b_ql)) * tl.abs(scale)
        if lag_bias is not None:
            b_bound += largest_bias(lag_bias, head, longest, 16 if NEAR else 2 * BLOCK_N)
        shared_steps = tl.where(b_bound < SAFE_RANGE, m, 0)
        first_max = tl.where(b_bound < SAFE_RANGE, 0.0, float("-inf"))

    b_sum = tl.zeros([BLOCK_N], tl.float32)
    b_o = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    if k_left is None:
        for first in range(0, shared_steps, BLOCK_M):
            j = first + tl.arange(0, BLOCK_M)
            m_pairs = pairs(i, j, n, m, j[None, :] - i[:, None], max_lag) if MASKED else None
            b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D, FULL)  # [M, D]
            b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV, FULL)  # [M, DV]
            b_s = biased_logits(
                b_ql,
                b_qr,
                lag_bias,
                head,
                longest,
                first,
                b_below,
                b_on,
                b_above,
                m_pairs,
                scale,
                NEAR,
                MASKED,
                WARPS,
            )
            b_e = tl.exp2(b_s)  # [N, M]
            b_low = round_to(b_e, b_vl.dtype)
            b_right_inverse, b_lse = normaliser(0.0, one_per_thread(tl.sum(b_e, axis=0)))  # [M]
            if first < m:
                b_right_o = product(tl.trans(b_low), b_vl) * b_right_inverse[:, None]
                store_tile(o_right, o_right_strides, r, head, j, m, b_right_o, DV, BLOCK_DV, FULL)
            store_row(lse_right + program * m, j, m, b_lse, FULL)
            b_sum += tl.sum(b_e, axis=1)
            b_o = add_product(b_o, b_low, b_vr)

    b_max = tl.zeros([BLOCK_N], tl.float32) + first_max
    for first in range(shared_steps, m, NARROW_M):
        j = first + tl.arange(0, NARROW_M)
        m_pairs = pairs(i, j, n, m, j[None, :] - i[:, None], max_lag) if MASKED else None
        b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D, FULL)  # [M, D]
        b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV, FULL)  # [M, DV]

        # right ear: softmax over the columns of S [N, M]
        b_s = biased_logits(
            b_ql if k_left is None else b_kl, b_qr, lag_bias, head, longest, first, b_below, b_on, b_above,
            m_pairs, scale, NEAR, MASKED, WARPS,
        )  # fmt: skip
        b_right_max = finite(tl.max(b_s, axis=0))  # [M]
        b_p = tl.exp2(b_s - b_right_max[None, :])
        b_right_inverse, b_lse = normaliser(one_per_thread(b_right_max), one_per_thread(tl.sum(b_p, axis=0)))
        if first < m:
            b_right_o = product(tl.trans(round_to(b_p, b_vl.dtype)), b_vl) * b_right_inverse[:, None]
            store_tile(o_right, o_right_strides, r, head, j, m, b_right_o, DV, BLOCK_DV, FULL)
        store_row(lse_right + program * m, j, m, b_lse, FULL)

        # left ear: softmax over the rows of S, of which this is a part
        if k_left is not None:
            b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D, FULL)  # [M, D]
            b_s = biased_logits(
                b_ql,
                b_kr,
                lag_bias,
                head,
                longest,
                first,
                b_below,
                b_on,
                b_above,
                m_pairs,
                scale,
                NEAR,
                MASKED,
                WARPS,
            )
        b_new_max = tl.maximum(b_max, tl.max(b_s, axis=1))  # [N]
        b_shift = finite(b_new_max)
        b_p = tl.exp2(b_s - b_shift[:, None])
        b_shrink = tl.exp2(b_max - b_shift)
        b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
        b_o = add_product(b_o * b_shrink[:, None], round_to(b_p, b_vr.dtype), b_vr)
        b_max = b_new_max

    b_inverse, b_lse = normaliser(finite(b_max), b_sum)
    store_tile(o_left, o_left_strides, r, head, i, n, b_o * b_inverse[:, None], DV, BLOCK_DV, FULL)
    store_row(lse_left + program * n, i, n, b_lse, FULL)


@triton.jit(do_not_specialize=["n", "m", "heads", "longest", "max_lag", "problems"])
def backward_whole(
    do_left, do_left_strides,  # [R, N, heads, DV]
    do_right, do_right_strides,  # [R, M, heads, DV]
    q_left, q_left_strides,  # [R, N, heads, D]
    q_right, q_right_strides,  # [R, M, heads, D]
    v_left, v_left_strides,  # [R, N, heads, DV]
    v_right, v_right_strides,  # [R, M, heads, DV]
    k_left, k_left_strides,  # [R, N, heads, D] or None
    k_right, k_right_strides,  # [R, M, heads, D] or None
    lag_bias,  # [heads, 2 longest + 1] float32, or None
    o_left, o_left_strides,  # [R, N, heads, DV]
    o_right, o_right_strides,  # [R, M, heads, DV]
    lse_left,  # [R, heads, N] float32
    lse_right,  # [R, heads, M] float32
    dq_left, dq_left_strides,  # [R, N, heads, D]
    dq_right, dq_right_strides,  # [R, M, heads, D]
    dv_left, dv_left_strides,  # [R, N, heads, DV]
    dv_right, dv_right_strides,  # [R, M, heads, DV]
    dk_left, dk_left_strides,  # [R, N, heads, D] or None
    dk_right, dk_right_strides,  # [R, M, heads, D] or None
    # None, or this program's share of the bias's gradient, float32: if NEAR [R, heads, 3, WARPS, 8, 8], sums
    # of the diagonals of blocks, else [R, heads, 2 longest + 1]
    dlag_bias,
    scale, n, m, heads, longest, max_lag,
    problems,  # read by the tuner alone
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr,
    FULL: tl.constexpr,  # N is BLOCK_N, and M a multiple of BLOCK_M
    NEAR: tl.constexpr,  # there is a bias, of at most triton_near_lags.NEAR lags to either side
    WARPS: tl.constexpr,  # how NEAR takes the rows to be divided among the warps
    STEPS_RIGHT: tl.constexpr,  # M, as a power of two
    BLOCK_L: tl.constexpr,  # lags whose gradient is summed at a time, unless NEAR
):  # fmt: skip
    scale = tl.cast(scale, tl.float32)
    log2_scale = scale * LOG2_E
    MASKED: tl.constexpr = not FULL or max_lag is not None
    r, head = problem_of(tl.program_id(0), heads)
    program = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, BLOCK_N)
    b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D, FULL)  # [N, D]
    b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV, FULL)  # [N, DV]
    b_dol = load_tile(do_left, do_left_strides, r, head, i, n, DV, BLOCK_DV, FULL)  # [N, DV]
    b_o = load_tile(o_left, o_left_strides, r, head, i, n, DV, BLOCK_DV, FULL)  # [N, DV]
    # The rows' sums of p dp. Where a query has a single key, dp minus this sum is 0, and only the rounding of
    # o would remain: if MASKED, the sum itself is computed wherever a tile has all of a row or column.
    b_delta_left = tl.sum(b_dol.to(tl.float32) * b_o.to(tl.float32), axis=1)  # [N]
    b_lse_left = finite(load_row(lse_left + program * n, i, n, FULL)) * LOG2_E  # [N]
    if k_left is not None:
        b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D, FULL)  # [N, D]
        b_dkl = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_below, b_on, b_above = None, None, None
    if NEAR:
        b_below = load_near_bias(lag_bias, head, longest, -1)
        b_on = load_near_bias(lag_bias, head, longest, 0)
        b_above = load_near_bias(lag_bias, head, longest, 1)
        b_dbelow = tl.zeros([WARPS, 8, 8], tl.float32)
        b_don = tl.zeros([WARPS, 8, 8], tl.float32)
        b_dabove = tl.zeros([WARPS, 8, 8], tl.float32)

    b_dql = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_dvl = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    # Addresses computed anew take a few instructions; kept throughout, they would not fit into the registers.
    for first in tl.range(0, m, BLOCK_M, disable_licm=True):
        j = first + tl.arange(0, BLOCK_M)
        m_pairs = pairs(i, j, n, m, j[None, :] - i[:, None], max_lag) if MASKED else None
        b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D, FULL)  # [M, D]
        b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV, FULL)  # [M, DV]
        b_dor = load_tile(do_right, do_right_strides, r, head, j, m, DV, BLOCK_DV, FULL)  # [M, DV]
        if not MASKED:
            b_or = load_tile(o_right, o_right_strides, r, head, j, m, DV, BLOCK_DV, FULL)  # [M, DV]
            b_delta_right = tl.sum(b_dor.to(tl.float32) * b_or.to(tl.float32), axis=1)  # [M]
        b_lse_right = finite(load_row(lse_right + program * m, j, m, FULL)) * LOG2_E  # [M]
        if k_left is None:
            b_kr = b_qr
        else:
            b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D, FULL)  # [M, D]

        # left ear
        b_s = biased_logits(
            b_ql,
            b_kr,
            lag_bias,
            head,
            longest,
            first,
            b_below,
            b_on,
            b_above,
            m_pairs,
            log2_scale,
            NEAR,
            MASKED,
            WARPS,
        )  # [N, M]
        b_p = tl.exp2(b_s - b_lse_left[:, None])
        if MASKED:  # also where lse is NaN
            m_left = b_s != float("-inf")
            b_p = tl.where(m_left, b_p, 0.0)
        if first < m:
            b_dvr = product(tl.trans(round_to(b_p, b_dol.dtype)), b_dol)
            store_tile(dv_right, dv_right_strides, r, head, j, m, b_dvr, DV, BLOCK_DV, FULL)
        b_dp = product(b_dol, tl.trans(b_vr))
        if MASKED and STEPS_RIGHT <= BLOCK_M:
            b_delta_left = tl.sum(b_p * b_dp, axis=1)
        b_ds = b_p * (b_dp - b_delta_left[:, None])
        if MASKED:  # 0 times NaN
            b_ds = tl.where(m_left, b_ds, 0.0)

        # right ear
        if k_left is not None:
            b_s = biased_logits(
                b_kl,
                b_qr,
                lag_bias,
                head,
                longest,
                first,
                b_below,
                b_on,
                b_above,
                m_pairs,
                log2_scale,
                NEAR,
                MASKED,
                WARPS,
            )
        b_p = tl.exp2(b_s - b_lse_right[None, :])
        if MASKED:
            m_right = b_s != float("-inf")
            b_p = tl.where(m_right, b_p, 0.0)
        b_dvl = add_product(b_dvl, round_to(b_p, b_dor.dtype), b_dor)
        b_dp = product(b_vl, tl.trans(b_dor))
        if MASKED:
            b_delta_right = tl.sum(b_p * b_dp, axis=0)
        b_ds_right = b_p * (b_dp - b_delta_right[None, :])
        if MASKED:
            b_ds_right = tl.where(m_right, b_ds_right, 0.0)

        if k_left is None:
            b_ds += b_ds_right
            b_low = round_to(b_ds, b_ql.dtype)
            b_dql = add_product(b_dql, b_low, b_qr)
            if first < m:
                b_dqr = product(tl.trans(b_low), b_ql) * scale
                store_tile(dq_right, dq_right_strides, r, head, j, m, b_dqr, D, BLOCK_D, FULL)
        else:
            b_low = round_to(b_ds, b_ql.dtype)
            b_low_right = round_to(b_ds_right, b_ql.dtype)
            b_dql = add_product(b_dql, b_low, b_kr)
            b_dkl = add_product(b_dkl, b_low_right, b_qr)
            if first < m:
                b_dkr = product(tl.trans(b_low), b_ql) * scale
                store_tile(dk_right, dk_right_strides, r, head, j, m, b_dkr, D, BLOCK_D, FULL)
                b_dqr = product(tl.trans(b_low_right), b_kl) * scale
                store_tile(dq_right, dq_right_strides, r, head, j, m, b_dqr, D, BLOCK_D, FULL)
            b_ds += b_ds_right

        if NEAR:
            b_dbelow, b_don, b_dabove = add_near_sums(b_dbelow, b_don, b_dabove, b_ds, first, WARPS)
        elif lag_bias is not None:
            for lag in range(0, 2 * longest + 1, BLOCK_L):
                index = lag + tl.arange(0, BLOCK_L)
                p_sums = dlag_bias + program * (2 * longest + 1) + index
                m_lags = index < 2 * longest + 1
                nearest = lag - longest - first  # of these lags, in the tile's own columns
                if first == 0:
                    tl.store(p_sums, sum_lags(b_ds, nearest, BLOCK_L), mask=m_lags)
                elif (nearest < BLOCK_M) & (nearest + BLOCK_L > 1 - BLOCK_N):
                    # The same thread stored this sum for the columns before.
                    b_sums = tl.load(p_sums, mask=m_lags, other=0.0) + sum_lags(b_ds, nearest, BLOCK_L)
                    tl.store(p_sums, b_sums, mask=m_lags)

    store_tile(dq_left, dq_left_strides, r, head, i, n, b_dql * scale, D, BLOCK_D, FULL)
    store_tile(dv_left, dv_left_strides, r, head, i, n, b_dvl, DV, BLOCK_DV, FULL)
    if k_left is not None:
        store_tile(dk_left, dk_left_strides, r, head, i, n, b_dkl * scale, D, BLOCK_D, FULL)
    if NEAR:
        b_pair = tl.arange(0, 8)[:, None] * 8 + tl.arange(0, 8)[None, :]
        p_sums = (
            dlag_bias
            + program * (3 * WARPS * 64)
            + (tl.arange(0, WARPS) * 64)[:, None, None]
            + b_pair[None, :, :]
        )
        tl.store(p_sums, b_dbelow)
        tl.store(p_sums + WARPS * 64, b_don)
        tl.store(p_sums + 2 * WARPS * 64, b_dabove)
