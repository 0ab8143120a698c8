"""Triton kernels for problems that fit on the chip whole: one program is one (r, head).

The similarity is computed once for both directions: 3 matrix products forward and 7 backward (4 and 10 with
separate keys). Every operand is read once and every result is written once. A program goes over the right
steps BLOCK_M at a time, so that its tiles fit into the registers: it sees columns of S whole, and rows in
parts, whose softmax it keeps as in Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018.
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

from binaural.kernels.cross_attention.triton_tiles import (
    bias_tile,
    finite,
    load_tile,
    normaliser,
    pairs,
    product,
    round_to,
    similarity,
    softmax_again,
    store_tile,
    sum_lags,
)


@triton.jit(do_not_specialize=["n", "m", "heads", "longest", "max_lag"])
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
    D: tl.constexpr, DV: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    scale = tl.cast(scale, tl.float32)
    program = tl.program_id(0).to(tl.int64)
    r, head = program // heads, program % heads
    i = tl.arange(0, BLOCK_N)
    b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
    if k_left is not None:
        b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
    b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]

    b_max = tl.full([BLOCK_N], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_N], tl.float32)
    b_o = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    for first in range(0, m, BLOCK_M):
        j = first + tl.arange(0, BLOCK_M)
        m_pairs = pairs(i, j, n, m, j[None, :] - i[:, None], max_lag)
        b_bias = None
        if lag_bias is not None:
            b_bias = bias_tile(lag_bias, head, longest, first, 1, BLOCK_N, BLOCK_M)  # [N, M]
        b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]
        b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV)  # [M, DV]

        # right <- left: softmax over the columns of S [N, M]
        if k_left is None:
            b_s = similarity(b_ql, b_qr, b_bias, m_pairs, scale)
        else:
            b_s = similarity(b_kl, b_qr, b_bias, m_pairs, scale)
        b_right_max = finite(tl.max(b_s, axis=0))  # [M]
        b_p = tl.exp(b_s - b_right_max[None, :])
        b_right_sum, b_lse = normaliser(b_right_max, tl.sum(b_p, axis=0))
        b_right_o = product(tl.trans(round_to(b_p, b_vl.dtype)), b_vl) / b_right_sum[:, None]
        store_tile(o_right, o_right_strides, r, head, j, m, b_right_o, DV, BLOCK_DV)
        tl.store(lse_right + program * m + j, b_lse, mask=j < m)

        # left <- right: softmax over its rows, of which this is a part
        if k_left is not None:
            b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]
            b_s = similarity(b_ql, b_kr, b_bias, m_pairs, scale)
        b_new_max = tl.maximum(b_max, tl.max(b_s, axis=1))  # [N]
        b_shift = finite(b_new_max)
        b_p = tl.exp(b_s - b_shift[:, None])
        b_shrink = tl.exp(b_max - b_shift)
        b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
        b_o = b_o * b_shrink[:, None] + product(round_to(b_p, b_vr.dtype), b_vr)
        b_max = b_new_max

    b_sum, b_lse = normaliser(b_max, b_sum)
    store_tile(o_left, o_left_strides, r, head, i, n, b_o / b_sum[:, None], DV, BLOCK_DV)
    tl.store(lse_left + program * n + i, b_lse, mask=i < n)


@triton.jit(do_not_specialize=["n", "m", "heads", "longest", "max_lag"])
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
    o_left, o_left_strides,  # [R, N, heads, DV], or None where M <= BLOCK_M
    lse_left,  # [R, heads, N] float32
    lse_right,  # [R, heads, M] float32
    dq_left, dq_left_strides,  # [R, N, heads, D]
    dq_right, dq_right_strides,  # [R, M, heads, D]
    dv_left, dv_left_strides,  # [R, N, heads, DV]
    dv_right, dv_right_strides,  # [R, M, heads, DV]
    dk_left, dk_left_strides,  # [R, N, heads, D] or None
    dk_right, dk_right_strides,  # [R, M, heads, D] or None
    dlag_bias,  # [R, ceil(M / BLOCK_M), heads, 2 longest + 1] float32, shares, or None
    scale, n, m, heads, longest, max_lag,
    D: tl.constexpr, DV: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_L: tl.constexpr,
):  # fmt: skip
    scale = tl.cast(scale, tl.float32)
    program = tl.program_id(0).to(tl.int64)
    r, head = program // heads, program % heads
    i = tl.arange(0, BLOCK_N)
    b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
    b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
    b_dol = load_tile(do_left, do_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
    if k_left is not None:
        b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
        b_dkl = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_lse_left = finite(tl.load(lse_left + program * n + i, mask=i < n, other=0.0))  # [N]
    if o_left is not None:
        b_o = load_tile(o_left, o_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
        b_delta = tl.sum(b_dol.to(tl.float32) * b_o.to(tl.float32), axis=1)  # [N], the rows' sums of p dp

    b_dql = tl.zeros([BLOCK_N, BLOCK_D], tl.float32)
    b_dvl = tl.zeros([BLOCK_N, BLOCK_DV], tl.float32)
    for first in range(0, m, BLOCK_M):
        j = first + tl.arange(0, BLOCK_M)
        m_pairs = pairs(i, j, n, m, j[None, :] - i[:, None], max_lag)
        b_bias = None
        if lag_bias is not None:
            b_bias = bias_tile(lag_bias, head, longest, first, 1, BLOCK_N, BLOCK_M)  # [N, M]
        b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]
        b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV)  # [M, DV]
        b_dor = load_tile(do_right, do_right_strides, r, head, j, m, DV, BLOCK_DV)  # [M, DV]
        b_lse_right = tl.load(lse_right + program * m + j, mask=j < m, other=0.0)  # [M]
        if k_left is None:
            b_kr = b_qr
        else:
            b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]

        # left <- right
        b_s = similarity(b_ql, b_kr, b_bias, m_pairs, scale)  # [N, M]
        if o_left is None:
            b_p = softmax_again(b_s, b_lse_left, 1)
        else:
            b_p = tl.exp(b_s - b_lse_left[:, None])
        b_dvr = product(tl.trans(round_to(b_p, b_dol.dtype)), b_dol)
        store_tile(dv_right, dv_right_strides, r, head, j, m, b_dvr, DV, BLOCK_DV)
        b_dp = product(b_dol, tl.trans(b_vr))
        if o_left is None:
            b_delta = tl.sum(b_p * b_dp, axis=1)
        b_ds = b_p * (b_dp - b_delta[:, None])

        # right <- left: columns are here whole, and with them their sums of p dp, so that o is not read
        if k_left is not None:
            b_s = similarity(b_kl, b_qr, b_bias, m_pairs, scale)
        b_p = softmax_again(b_s, b_lse_right, 0)
        b_dvl += product(round_to(b_p, b_dor.dtype), b_dor)
        b_dp = product(b_vl, tl.trans(b_dor))
        b_ds_right = b_p * (b_dp - tl.sum(b_p * b_dp, axis=0)[None, :])

        if k_left is None:
            b_ds += b_ds_right
            b_low = round_to(b_ds, b_ql.dtype)
            b_dql += product(b_low, b_qr)
            b_dqr = product(tl.trans(b_low), b_ql) * scale
        else:
            b_low = round_to(b_ds, b_ql.dtype)
            b_low_right = round_to(b_ds_right, b_ql.dtype)
            b_dkr = product(tl.trans(b_low), b_ql) * scale
            store_tile(dk_right, dk_right_strides, r, head, j, m, b_dkr, D, BLOCK_D)
            b_dql += product(b_low, b_kr)
            b_dkl += product(b_low_right, b_qr)
            b_dqr = product(tl.trans(b_low_right), b_kl) * scale
            b_ds += b_ds_right
        store_tile(dq_right, dq_right_strides, r, head, j, m, b_dqr, D, BLOCK_D)

        if lag_bias is not None:
            share = (r * tl.cdiv(m, BLOCK_M) + first // BLOCK_M) * heads + head
            for lag in range(0, 2 * longest + 1, BLOCK_L):
                b_sums = tl.zeros([BLOCK_L], tl.float32)
                nearest = lag - longest - first  # of these lags, in the tile's own columns
                # Of a square tile nearly all: no branch then. `or` would make one of both conditions.
                if BLOCK_M == BLOCK_N:  # noqa: SIM114
                    b_sums = sum_lags(b_ds, nearest, BLOCK_L)
                elif (nearest < BLOCK_M) & (nearest + BLOCK_L > 1 - BLOCK_N):
                    b_sums = sum_lags(b_ds, nearest, BLOCK_L)
                index = lag + tl.arange(0, BLOCK_L)
                p_sums = dlag_bias + share * (2 * longest + 1) + index
                tl.store(p_sums, b_sums, mask=index < 2 * longest + 1)

    store_tile(dq_left, dq_left_strides, r, head, i, n, b_dql * scale, D, BLOCK_D)
    store_tile(dv_left, dv_left_strides, r, head, i, n, b_dvl, DV, BLOCK_DV)
    if k_left is not None:
        store_tile(dk_left, dk_left_strides, r, head, i, n, b_dkl * scale, D, BLOCK_D)
