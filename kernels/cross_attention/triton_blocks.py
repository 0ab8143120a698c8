"""Triton kernels for problems of any length, a block at a time: memory O(N + M), no atomics.

`forward_blocks` and `backward_blocks` are written for one ear, called "a", that looks at the other, "b", and
are launched twice with the ears exchanged. `sign` tells which: the lag j - i of right step j and left step i
is sign · (b - a), so it is 1 where a is the left ear.
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
    store_tile,
    sum_lags,
)


@triton.jit
def partners(first, count, b_count, max_lag, BLOCK_B: tl.constexpr):
    """The range of b times, from the start of a block, that may match the a times first .. first + count."""
    start = 0
    stop = b_count
    if max_lag is not None:
        start = tl.maximum(first - max_lag, 0) // BLOCK_B * BLOCK_B
        stop = tl.minimum(first + count + max_lag, b_count)
    return start, stop


@triton.jit(do_not_specialize=["a_count", "b_count", "heads", "longest", "max_lag"])
def forward_blocks(
    q, q_strides,  # [R, A, heads, D]
    k, k_strides,  # [R, B, heads, D]
    v, v_strides,  # [R, B, heads, DV]
    lag_bias,  # [heads, 2 longest + 1] float32, or None
    o, o_strides,  # [R, A, heads, DV]
    lse,  # [R, heads, A] float32
    scale, a_count, b_count, heads, longest, max_lag,
    SIGN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    scale = tl.cast(scale, tl.float32)
    blocks = tl.cdiv(a_count, BLOCK_A)
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    r, head = problem // heads, problem % heads
    first = tl.program_id(0) % blocks * BLOCK_A
    a = first + tl.arange(0, BLOCK_A)
    b_q = load_tile(q, q_strides, r, head, a, a_count, D, BLOCK_D)  # [A, D]

    b_max = tl.full([BLOCK_A], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_A], tl.float32)
    b_o = tl.zeros([BLOCK_A, BLOCK_DV], tl.float32)
    start, stop = partners(first, BLOCK_A, b_count, max_lag, BLOCK_B)
    for b_first in range(start, stop, BLOCK_B):
        b = b_first + tl.arange(0, BLOCK_B)
        lag = SIGN * (b[None, :] - a[:, None])
        m_pairs = pairs(a, b, a_count, b_count, lag, max_lag)
        b_bias = None
        if lag_bias is not None:
            b_bias = bias_tile(lag_bias, head, longest, b_first - first, SIGN, BLOCK_A, BLOCK_B)  # [A, B]
        b_k = load_tile(k, k_strides, r, head, b, b_count, D, BLOCK_D)  # [B, D]
        b_v = load_tile(v, v_strides, r, head, b, b_count, DV, BLOCK_DV)  # [B, DV]
        b_s = similarity(b_q, b_k, b_bias, m_pairs, scale)  # [A, B]
        b_new_max = tl.maximum(b_max, tl.max(b_s, axis=1))
        b_shift = finite(b_new_max)
        b_p = tl.exp(b_s - b_shift[:, None])
        b_shrink = tl.exp(b_max - b_shift)
        b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
        b_o = b_o * b_shrink[:, None] + product(round_to(b_p, b_v.dtype), b_v)
        b_max = b_new_max

    b_sum, b_lse = normaliser(b_max, b_sum)
    store_tile(o, o_strides, r, head, a, a_count, b_o / b_sum[:, None], DV, BLOCK_DV)
    tl.store(lse + problem * a_count + a, b_lse, mask=a < a_count)


@triton.jit(do_not_specialize=["count", "heads"])
def sum_outputs(
    do, do_strides,  # [R, A, heads, DV]
    o, o_strides,  # [R, A, heads, DV]
    delta,  # [R, heads, A] float32
    count, heads,
    DV: tl.constexpr, BLOCK_A: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """delta = Σ over channels of do · o, which is the softmax's sum of p dp."""
    blocks = tl.cdiv(count, BLOCK_A)
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    r, head = problem // heads, problem % heads
    a = tl.program_id(0) % blocks * BLOCK_A + tl.arange(0, BLOCK_A)
    b_do = load_tile(do, do_strides, r, head, a, count, DV, BLOCK_DV).to(tl.float32)  # [A, DV]
    b_o = load_tile(o, o_strides, r, head, a, count, DV, BLOCK_DV).to(tl.float32)  # [A, DV]
    tl.store(delta + problem * count + a, tl.sum(b_do * b_o, axis=1), mask=a < count)


@triton.jit(do_not_specialize=["a_count", "b_count", "heads", "longest", "max_lag"])
def backward_blocks(
    do_a, do_a_strides,  # [R, A, heads, DV]
    do_b, do_b_strides,  # [R, B, heads, DV]
    q_a, q_a_strides,  # [R, A, heads, D]
    q_b, q_b_strides,  # [R, B, heads, D]
    v_a, v_a_strides,  # [R, A, heads, DV]
    v_b, v_b_strides,  # [R, B, heads, DV]
    k_a, k_a_strides,  # [R, A, heads, D] or None
    k_b, k_b_strides,  # [R, B, heads, D] or None
    lag_bias,  # [heads, 2 longest + 1] float32, or None
    lse_a,  # [R, heads, A] float32
    lse_b,  # [R, heads, B] float32
    delta_a,  # [R, heads, A] float32
    delta_b,  # [R, heads, B] float32
    dq_a, dq_a_strides,  # [R, A, heads, D]
    dv_a, dv_a_strides,  # [R, A, heads, DV]
    dk_a, dk_a_strides,  # [R, A, heads, D] or None
    scale, a_count, b_count, heads, longest, max_lag,
    SIGN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr,
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """All gradients of ear a: those that it gets as the one that looks, and as the one looked at."""
    scale = tl.cast(scale, tl.float32)
    blocks = tl.cdiv(a_count, BLOCK_A)
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    r, head = problem // heads, problem % heads
    first = tl.program_id(0) % blocks * BLOCK_A
    a = first + tl.arange(0, BLOCK_A)
    b_qa = load_tile(q_a, q_a_strides, r, head, a, a_count, D, BLOCK_D)  # [A, D]
    b_va = load_tile(v_a, v_a_strides, r, head, a, a_count, DV, BLOCK_DV)  # [A, DV]
    b_doa = load_tile(do_a, do_a_strides, r, head, a, a_count, DV, BLOCK_DV)  # [A, DV]
    if k_a is not None:
        b_ka = load_tile(k_a, k_a_strides, r, head, a, a_count, D, BLOCK_D)  # [A, D]
    b_lse_a = finite(tl.load(lse_a + problem * a_count + a, mask=a < a_count, other=0.0))
    b_delta_a = tl.load(delta_a + problem * a_count + a, mask=a < a_count, other=0.0)

    b_dqa = tl.zeros([BLOCK_A, BLOCK_D], tl.float32)
    b_dka = tl.zeros([BLOCK_A, BLOCK_D], tl.float32)
    b_dva = tl.zeros([BLOCK_A, BLOCK_DV], tl.float32)
    start, stop = partners(first, BLOCK_A, b_count, max_lag, BLOCK_B)
    for b_first in range(start, stop, BLOCK_B):
        b = b_first + tl.arange(0, BLOCK_B)
        lag = SIGN * (b[None, :] - a[:, None])
        m_pairs = pairs(a, b, a_count, b_count, lag, max_lag)
        b_bias = None
        if lag_bias is not None:
            b_bias = bias_tile(lag_bias, head, longest, b_first - first, SIGN, BLOCK_A, BLOCK_B)  # [A, B]
        b_qb = load_tile(q_b, q_b_strides, r, head, b, b_count, D, BLOCK_D)  # [B, D]
        b_vb = load_tile(v_b, v_b_strides, r, head, b, b_count, DV, BLOCK_DV)  # [B, DV]
        b_dob = load_tile(do_b, do_b_strides, r, head, b, b_count, DV, BLOCK_DV)  # [B, DV]
        b_lse_b = finite(tl.load(lse_b + problem * b_count + b, mask=b < b_count, other=0.0))
        b_delta_b = tl.load(delta_b + problem * b_count + b, mask=b < b_count, other=0.0)
        if k_b is None:
            b_kb = b_qb
        else:
            b_kb = load_tile(k_b, k_b_strides, r, head, b, b_count, D, BLOCK_D)  # [B, D]

        # a looks at b
        b_s = similarity(b_qa, b_kb, b_bias, m_pairs, scale)  # [A, B]
        b_p = tl.exp(b_s - b_lse_a[:, None])
        b_ds = b_p * (product(b_doa, tl.trans(b_vb)) - b_delta_a[:, None])
        # b looks at a
        if k_a is not None:
            b_s = similarity(b_ka, b_qb, b_bias, m_pairs, scale)
        b_p = tl.exp(b_s - b_lse_b[None, :])
        b_dva += product(round_to(b_p, b_dob.dtype), b_dob)
        b_ds_b = b_p * (product(b_va, tl.trans(b_dob)) - b_delta_b[None, :])

        if k_a is None:
            b_dqa += product(round_to(b_ds + b_ds_b, b_qb.dtype), b_qb)
        else:
            b_dqa += product(round_to(b_ds, b_kb.dtype), b_kb)
            b_dka += product(round_to(b_ds_b, b_qb.dtype), b_qb)

    store_tile(dq_a, dq_a_strides, r, head, a, a_count, b_dqa * scale, D, BLOCK_D)
    store_tile(dv_a, dv_a_strides, r, head, a, a_count, b_dva, DV, BLOCK_DV)
    if k_a is not None:
        store_tile(dk_a, dk_a_strides, r, head, a, a_count, b_dka * scale, D, BLOCK_D)


@triton.jit(do_not_specialize=["n", "m", "heads", "longest", "max_lag", "chunks"])
def backward_lag_bias(
    do_left, do_left_strides,  # [R, N, heads, DV]
    do_right, do_right_strides,  # [R, M, heads, DV]
    q_left, q_left_strides,  # [R, N, heads, D]
    q_right, q_right_strides,  # [R, M, heads, D]
    v_left, v_left_strides,  # [R, N, heads, DV]
    v_right, v_right_strides,  # [R, M, heads, DV]
    k_left, k_left_strides,  # [R, N, heads, D] or None
    k_right, k_right_strides,  # [R, M, heads, D] or None
    lag_bias,  # [heads, 2 longest + 1] float32
    lse_left,  # [R, heads, N] float32
    lse_right,  # [R, heads, M] float32
    delta_left,  # [R, heads, N] float32
    delta_right,  # [R, heads, M] float32
    dlag_bias,  # [R, chunks, heads, 2 longest + 1] float32, each chunk's share
    scale, n, m, heads, longest, max_lag, chunks,
    D: tl.constexpr, DV: tl.constexpr,
    BLOCK: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
):  # fmt: skip
    """The gradient of BLOCK lags, over the left steps of one of `chunks` parts.

    The pairs of BLOCK left steps that have these lags lie in a tile of BLOCK by 2 BLOCK, so that the work is
    that of a band as wide as the bias.
    """
    scale = tl.cast(scale, tl.float32)
    lag_blocks = tl.cdiv(2 * longest + 1, BLOCK)
    part = tl.program_id(0) // lag_blocks
    problem, chunk = (part // chunks).to(tl.int64), part % chunks
    r, head = problem // heads, problem % heads
    index = tl.program_id(0) % lag_blocks * BLOCK + tl.arange(0, BLOCK)
    first_lag = tl.program_id(0) % lag_blocks * BLOCK - longest

    b_sums = tl.zeros([BLOCK], tl.float32)
    chunk_size = tl.cdiv(tl.cdiv(n, BLOCK), chunks) * BLOCK
    # Left steps whose window of right steps lies outside the problem add nothing.
    start = tl.maximum(chunk * chunk_size, (-first_lag - 2 * BLOCK) // BLOCK * BLOCK)
    stop = tl.minimum(tl.minimum((chunk + 1) * chunk_size, n), m - first_lag)
    for i_first in range(start, stop, BLOCK):
        i = i_first + tl.arange(0, BLOCK)
        j = i_first + first_lag + tl.arange(0, 2 * BLOCK)
        lag = j[None, :] - i[:, None]
        m_pairs = pairs(i, j, n, m, lag, max_lag)
        b_bias = bias_tile(lag_bias, head, longest, first_lag, 1, BLOCK, 2 * BLOCK)  # [N, 2 N]
        m_i, m_j = (i >= 0) & (i < n), (j >= 0) & (j < m)
        b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
        b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D)  # [2 N, D]
        b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
        b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV)  # [2 N, DV]
        b_dol = load_tile(do_left, do_left_strides, r, head, i, n, DV, BLOCK_DV)  # [N, DV]
        b_dor = load_tile(do_right, do_right_strides, r, head, j, m, DV, BLOCK_DV)  # [2 N, DV]
        b_lse_left = finite(tl.load(lse_left + problem * n + i, mask=m_i, other=0.0))
        b_lse_right = finite(tl.load(lse_right + problem * m + j, mask=m_j, other=0.0))
        b_delta_left = tl.load(delta_left + problem * n + i, mask=m_i, other=0.0)
        b_delta_right = tl.load(delta_right + problem * m + j, mask=m_j, other=0.0)
        if k_left is None:
            b_kr = b_qr
        else:
            b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D)  # [2 N, D]

        b_s = similarity(b_ql, b_kr, b_bias, m_pairs, scale)  # [N, 2 N]
        b_ds = tl.exp(b_s - b_lse_left[:, None]) * (product(b_dol, tl.trans(b_vr)) - b_delta_left[:, None])
        if k_left is not None:
            b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D)  # [N, D]
            b_s = similarity(b_kl, b_qr, b_bias, m_pairs, scale)
        b_dp = product(b_vl, tl.trans(b_dor))
        b_ds += tl.exp(b_s - b_lse_right[None, :]) * (b_dp - b_delta_right[None, :])
        b_sums += sum_lags(b_ds, 0, BLOCK)

    p_sums = dlag_bias + (((r * chunks + chunk) * heads) + head) * (2 * longest + 1) + index
    tl.store(p_sums, b_sums, mask=index < 2 * longest + 1)
