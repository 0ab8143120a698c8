"""Triton kernels for problems that fit on the chip whole: one program is one (r, head).

One similarity tile serves both directions: 3 matrix products forward and 7 backward (4 and 10 with separate
keys). Every operand is read once and every result is written once.
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

from kernels.cross_attention.triton_tiles import (
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
    j = tl.arange(0, BLOCK_M)
    lag = j[None, :] - i[:, None]
    m_pairs = pairs(i, j, n, m, lag, max_lag)
    b_bias = bias_tile(lag_bias, head, longest, 0, 1, BLOCK_N, BLOCK_M)  # [N, M]

    b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
    b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]
    if k_left is not None:
        b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
        b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]
    b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
    b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV)  # [M, DV]

    # left <- right: softmax over the rows of S [N, M]
    if k_left is None:
        b_s = similarity(b_ql, b_qr, b_bias, m_pairs, scale)
    else:
        b_s = similarity(b_ql, b_kr, b_bias, m_pairs, scale)
    b_max = finite(tl.max(b_s, axis=1))  # [N]
    b_p = tl.exp(b_s - b_max[:, None])
    b_sum, b_lse = normaliser(b_max, tl.sum(b_p, axis=1))
    b_o = product(round_to(b_p, b_vr.dtype), b_vr) / b_sum[:, None]
    store_tile(o_left, o_left_strides, r, head, i, n, b_o, DV, BLOCK_DV)
    tl.store(lse_left + program * n + i, b_lse, mask=i < n)

    # right <- left: softmax over its columns
    if k_left is not None:
        b_s = similarity(b_kl, b_qr, b_bias, m_pairs, scale)
    b_max = finite(tl.max(b_s, axis=0))  # [M]
    b_p = tl.exp(b_s - b_max[None, :])
    b_sum, b_lse = normaliser(b_max, tl.sum(b_p, axis=0))
    b_o = product(tl.trans(round_to(b_p, b_vl.dtype)), b_vl) / b_sum[:, None]
    store_tile(o_right, o_right_strides, r, head, j, m, b_o, DV, BLOCK_DV)
    tl.store(lse_right + program * m + j, b_lse, mask=j < m)


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
    lse_left,  # [R, heads, N] float32
    lse_right,  # [R, heads, M] float32
    dq_left, dq_left_strides,  # [R, N, heads, D]
    dq_right, dq_right_strides,  # [R, M, heads, D]
    dv_left, dv_left_strides,  # [R, N, heads, DV]
    dv_right, dv_right_strides,  # [R, M, heads, DV]
    dk_left, dk_left_strides,  # [R, N, heads, D] or None
    dk_right, dk_right_strides,  # [R, M, heads, D] or None
    dlag_bias,  # [R, heads, 2 longest + 1] float32, each program's share, or None
    scale, n, m, heads, longest, max_lag,
    D: tl.constexpr, DV: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    BLOCK_L: tl.constexpr,
):  # fmt: skip
    scale = tl.cast(scale, tl.float32)
    program = tl.program_id(0).to(tl.int64)
    r, head = program // heads, program % heads
    i = tl.arange(0, BLOCK_N)
    j = tl.arange(0, BLOCK_M)
    lag = j[None, :] - i[:, None]
    m_pairs = pairs(i, j, n, m, lag, max_lag)
    b_bias = bias_tile(lag_bias, head, longest, 0, 1, BLOCK_N, BLOCK_M)  # [N, M]

    b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
    b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]
    if k_left is None:
        b_kr = b_qr
    else:
        b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D)  # [M, D]
    b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV)  # [M, DV]
    b_dol = load_tile(do_left, do_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
    b_lse = tl.load(lse_left + program * n + i, mask=i < n, other=0.0)  # [N]

    # left <- right. The softmax's sum of p dp is taken from the tile, so that o need not be read.
    b_s = similarity(b_ql, b_kr, b_bias, m_pairs, scale)  # [N, M]
    b_p = softmax_again(b_s, b_lse, 1)
    b_dvr = product(tl.trans(round_to(b_p, b_dol.dtype)), b_dol)
    store_tile(dv_right, dv_right_strides, r, head, j, m, b_dvr, DV, BLOCK_DV)
    b_dp = product(b_dol, tl.trans(b_vr))
    b_ds = b_p * (b_dp - tl.sum(b_p * b_dp, axis=1)[:, None])

    # right <- left
    b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
    b_dor = load_tile(do_right, do_right_strides, r, head, j, m, DV, BLOCK_DV)  # [M, DV]
    b_lse = tl.load(lse_right + program * m + j, mask=j < m, other=0.0)  # [M]
    if k_left is not None:
        b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
        b_s = similarity(b_kl, b_qr, b_bias, m_pairs, scale)
    b_p = softmax_again(b_s, b_lse, 0)
    b_dvl = product(round_to(b_p, b_dor.dtype), b_dor)
    store_tile(dv_left, dv_left_strides, r, head, i, n, b_dvl, DV, BLOCK_DV)
    b_dp = product(b_vl, tl.trans(b_dor))
    b_ds_right = b_p * (b_dp - tl.sum(b_p * b_dp, axis=0)[None, :])

    if k_left is None:
        b_ds += b_ds_right
        b_low = round_to(b_ds, b_ql.dtype)
        b_dql = product(b_low, b_qr) * scale
        b_dqr = product(tl.trans(b_low), b_ql) * scale
    else:
        b_low = round_to(b_ds, b_ql.dtype)
        b_low_right = round_to(b_ds_right, b_ql.dtype)
        b_dkr = product(tl.trans(b_low), b_ql) * scale
        store_tile(dk_right, dk_right_strides, r, head, j, m, b_dkr, D, BLOCK_D)
        b_dkl = product(b_low_right, b_qr) * scale
        store_tile(dk_left, dk_left_strides, r, head, i, n, b_dkl, D, BLOCK_D)
        b_dql = product(b_low, b_kr) * scale
        b_dqr = product(tl.trans(b_low_right), b_kl) * scale
        b_ds += b_ds_right
    store_tile(dq_left, dq_left_strides, r, head, i, n, b_dql, D, BLOCK_D)
    store_tile(dq_right, dq_right_strides, r, head, j, m, b_dqr, D, BLOCK_D)

    if lag_bias is not None:
        for first in range(0, 2 * longest + 1, BLOCK_L):
            b_sums = sum_lags(b_ds, first - longest, BLOCK_L)
            index = first + tl.arange(0, BLOCK_L)
            p_sums = dlag_bias + program * (2 * longest + 1) + index
            tl.store(p_sums, b_sums, mask=index < 2 * longest + 1)
