"""Triton kernels for problems of any length, a block at a time: memory O(N + M), no atomics.

`forward_blocks` and `backward_blocks` are written for one ear, "a", whose queries attend to the other ear,
"b", and are launched twice with the ears exchanged. SIGN tells which: the lag j - i of right step j and left
step i is SIGN · (b - a), so it is 1 where a is the left ear.
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

from binaural.kernels.cross_attention.triton_tiles import (
    LOG2_E,
    add_product,
    bias_tile,
    finite,
    load_row,
    load_tile,
    logits,
    normaliser,
    pairs,
    problem_of,
    product,
    round_to,
    store_row,
    store_tile,
    sum_lags,
)


@triton.jit
def steps(first, COUNT: tl.constexpr, WIDE: tl.constexpr):
    """COUNT time steps from `first`; WIDE: as 64-bit integers, so that offsets have 64 bits too."""
    times = first + tl.arange(0, COUNT)
    return times.to(tl.int64) if WIDE else times


@triton.jit
def partners(first, count, b_count, max_lag, BLOCK_B: tl.constexpr):
    """The range of b times, from the start of a block, that may match the a times first .. first + count."""
    start = 0
    stop = b_count
    if max_lag is not None:
        start = tl.maximum(first - max_lag, 0) // BLOCK_B * BLOCK_B
        stop = tl.minimum(first + count + max_lag, b_count)
    return start, stop


@triton.jit(do_not_specialize=["a_count", "b_count", "heads", "longest", "max_lag", "problems"])
def forward_blocks(
    q, q_strides,  # [R, A, heads, D]
    k, k_strides,  # [R, B, heads, D]
    v, v_strides,  # [R, B, heads, DV]
    lag_bias,  # [heads, 2 longest + 1] float32, or None
    o, o_strides,  # [R, A, heads, DV]
    lse,  # [R, heads, A] float32
    scale, a_count, b_count, heads, longest, max_lag,
    problems,  # read by the tuner alone
    SIGN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    FULL: tl.constexpr,  # A and B are multiples of all blocks
    WIDE: tl.constexpr,  # offsets within a problem need 64 bits
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    scale = tl.cast(scale, tl.float32) * LOG2_E
    MASKED: tl.constexpr = not FULL or max_lag is not None
    PLAIN: tl.constexpr = not MASKED and lag_bias is None
    blocks = tl.cdiv(a_count, BLOCK_A)
    r, head = problem_of(tl.program_id(0) // blocks, heads)
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(0) % blocks * BLOCK_A
    a = steps(first, BLOCK_A, WIDE)
    b_q = load_tile(q, q_strides, r, head, a, a_count, D, BLOCK_D, FULL)  # [A, D]
    if PLAIN:
        # With a scale of at least 0 the largest product gives the largest logit.
        b_q = round_to(b_q.to(tl.float32) * tl.where(scale < 0, -1.0, 1.0), b_q.dtype)
        scale = tl.abs(scale)

    b_max = tl.full([BLOCK_A], float("-inf"), tl.float32)
    b_sum = tl.zeros([BLOCK_A], tl.float32)
    b_o = tl.zeros([BLOCK_A, BLOCK_DV], tl.float32)
    start, stop = partners(first, BLOCK_A, b_count, max_lag, BLOCK_B)
    for b_first in range(start, stop, BLOCK_B):
        b = steps(b_first, BLOCK_B, WIDE)
        b_k = load_tile(k, k_strides, r, head, b, b_count, D, BLOCK_D, FULL)  # [B, D]
        b_v = load_tile(v, v_strides, r, head, b, b_count, DV, BLOCK_DV, FULL)  # [B, DV]
        if PLAIN:
            b_s = product(b_q, tl.trans(b_k))  # [A, B]
            b_new_max = tl.maximum(b_max, tl.max(b_s, axis=1) * scale)
            b_shift = finite(b_new_max)
            b_p = tl.exp2(b_s * scale - b_shift[:, None])
        else:
            b_bias = None
            if lag_bias is not None:
                b_bias = bias_tile(lag_bias, head, longest, b_first - first, SIGN, BLOCK_A, BLOCK_B)  # [A, B]
            b_s = logits(b_q, b_k, b_bias, scale)
            if MASKED:
                m_pairs = pairs(a, b, a_count, b_count, SIGN * (b[None, :] - a[:, None]), max_lag)
                b_s = tl.where(m_pairs, b_s, float("-inf"))
            b_new_max = tl.maximum(b_max, tl.max(b_s, axis=1))
            b_shift = finite(b_new_max)
            b_p = tl.exp2(b_s - b_shift[:, None])
        b_shrink = tl.exp2(b_max - b_shift)
        b_sum = b_sum * b_shrink + tl.sum(b_p, axis=1)
        b_o = add_product(b_o * b_shrink[:, None], round_to(b_p, b_v.dtype), b_v)
        b_max = b_new_max

    b_inverse, b_lse = normaliser(finite(b_max), b_sum)
    store_tile(o, o_strides, r, head, a, a_count, b_o * b_inverse[:, None], DV, BLOCK_DV, FULL)
    store_row(lse + problem * a_count, a, a_count, b_lse, FULL)


@triton.jit(do_not_specialize=["count", "heads", "problems"])
def prepare_backward(
    do, do_strides,  # [R, A, heads, DV]
    o, o_strides,  # [R, A, heads, DV]
    lse,  # [R, heads, A] float32
    delta,  # [R, heads, A] float32
    log2_lse,  # [R, heads, A] float32
    count, heads,
    problems,  # read by the tuner alone
    DV: tl.constexpr, BLOCK_DV: tl.constexpr,
    WIDE: tl.constexpr,  # offsets within a problem need 64 bits
    BLOCK_A: tl.constexpr,
):  # fmt: skip
    """delta = Σ over channels of do · o, the sum of p dp; and lse in units of log2, 0 in place of -inf."""
    blocks = tl.cdiv(count, BLOCK_A)
    r, head = problem_of(tl.program_id(0) // blocks, heads)
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    a = steps(tl.program_id(0) % blocks * BLOCK_A, BLOCK_A, WIDE)
    b_do = load_tile(do, do_strides, r, head, a, count, DV, BLOCK_DV, False).to(tl.float32)  # [A, DV]
    b_o = load_tile(o, o_strides, r, head, a, count, DV, BLOCK_DV, False).to(tl.float32)  # [A, DV]
    store_row(delta + problem * count, a, count, tl.sum(b_do * b_o, axis=1), False)
    b_lse = finite(load_row(lse + problem * count, a, count, False)) * LOG2_E
    store_row(log2_lse + problem * count, a, count, b_lse, False)


@triton.jit(do_not_specialize=["a_count", "b_count", "heads", "longest", "max_lag", "problems"])
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
    lse_a,  # [R, heads, A] float32, in units of log2 and finite
    lse_b,  # [R, heads, B] float32
    delta_a,  # [R, heads, A] float32
    delta_b,  # [R, heads, B] float32
    dq_a, dq_a_strides,  # [R, A, heads, D]
    dv_a, dv_a_strides,  # [R, A, heads, DV]
    dk_a, dk_a_strides,  # [R, A, heads, D] or None
    scale, a_count, b_count, heads, longest, max_lag,
    problems,  # read by the tuner alone
    SIGN: tl.constexpr, D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    FULL: tl.constexpr,  # A and B are multiples of all blocks
    WIDE: tl.constexpr,  # offsets within a problem need 64 bits
    BLOCK_A: tl.constexpr, BLOCK_B: tl.constexpr,
):  # fmt: skip
    """All gradients of ear a: as queries, and as keys and values of ear b's queries."""
    scale = tl.cast(scale, tl.float32)
    log2_scale = scale * LOG2_E
    MASKED: tl.constexpr = not FULL or max_lag is not None
    blocks = tl.cdiv(a_count, BLOCK_A)
    r, head = problem_of(tl.program_id(0) // blocks, heads)
    problem = (tl.program_id(0) // blocks).to(tl.int64)
    first = tl.program_id(0) % blocks * BLOCK_A
    a = steps(first, BLOCK_A, WIDE)
    b_qa = load_tile(q_a, q_a_strides, r, head, a, a_count, D, BLOCK_D, FULL)  # [A, D]
    b_va = load_tile(v_a, v_a_strides, r, head, a, a_count, DV, BLOCK_DV, FULL)  # [A, DV]
    b_doa = load_tile(do_a, do_a_strides, r, head, a, a_count, DV, BLOCK_DV, FULL)  # [A, DV]
    if k_a is not None:
        b_ka = load_tile(k_a, k_a_strides, r, head, a, a_count, D, BLOCK_D, FULL)  # [A, D]
    b_lse_a = load_row(lse_a + problem * a_count, a, a_count, FULL)
    b_delta_a = load_row(delta_a + problem * a_count, a, a_count, FULL)

    b_dqa = tl.zeros([BLOCK_A, BLOCK_D], tl.float32)
    b_dka = tl.zeros([BLOCK_A, BLOCK_D], tl.float32)
    b_dva = tl.zeros([BLOCK_A, BLOCK_DV], tl.float32)
    start, stop = partners(first, BLOCK_A, b_count, max_lag, BLOCK_B)
    for b_first in range(start, stop, BLOCK_B):
        b = steps(b_first, BLOCK_B, WIDE)
        b_bias = None
        if lag_bias is not None:
            b_bias = bias_tile(lag_bias, head, longest, b_first - first, SIGN, BLOCK_A, BLOCK_B)  # [A, B]
        if MASKED:
            m_pairs = pairs(a, b, a_count, b_count, SIGN * (b[None, :] - a[:, None]), max_lag)
        b_qb = load_tile(q_b, q_b_strides, r, head, b, b_count, D, BLOCK_D, FULL)  # [B, D]
        b_vb = load_tile(v_b, v_b_strides, r, head, b, b_count, DV, BLOCK_DV, FULL)  # [B, DV]
        b_dob = load_tile(do_b, do_b_strides, r, head, b, b_count, DV, BLOCK_DV, FULL)  # [B, DV]
        b_lse_b = load_row(lse_b + problem * b_count, b, b_count, FULL)
        b_delta_b = load_row(delta_b + problem * b_count, b, b_count, FULL)
        if k_b is None:
            b_kb = b_qb
        else:
            b_kb = load_tile(k_b, k_b_strides, r, head, b, b_count, D, BLOCK_D, FULL)  # [B, D]

        # queries of b
        b_s_b = logits(b_qa if k_a is None else b_ka, b_qb, b_bias, log2_scale)  # [A, B]
        b_p = tl.exp2(b_s_b - b_lse_b[None, :])
        if MASKED:  # also where lse is NaN
            m_b = m_pairs & (b_s_b != float("-inf"))
            b_p = tl.where(m_b, b_p, 0.0)
        b_dva = add_product(b_dva, round_to(b_p, b_dob.dtype), b_dob)
        b_ds_b = b_p * (product(b_va, tl.trans(b_dob)) - b_delta_b[None, :])
        # queries of a
        b_s = b_s_b if k_a is None else logits(b_qa, b_kb, b_bias, log2_scale)
        b_p = tl.exp2(b_s - b_lse_a[:, None])
        b_ds = b_p * (product(b_doa, tl.trans(b_vb)) - b_delta_a[:, None])

        if MASKED:  # also where delta is NaN
            b_ds_b = tl.where(m_b, b_ds_b, 0.0)
            b_ds = tl.where(m_pairs & (b_s != float("-inf")), b_ds, 0.0)
        if k_a is None:
            b_dqa = add_product(b_dqa, round_to(b_ds + b_ds_b, b_qb.dtype), b_qb)
        else:
            b_dqa = add_product(b_dqa, round_to(b_ds, b_kb.dtype), b_kb)
            b_dka = add_product(b_dka, round_to(b_ds_b, b_qb.dtype), b_qb)

    store_tile(dq_a, dq_a_strides, r, head, a, a_count, b_dqa * scale, D, BLOCK_D, FULL)
    store_tile(dv_a, dv_a_strides, r, head, a, a_count, b_dva, DV, BLOCK_DV, FULL)
    if k_a is not None:
        store_tile(dk_a, dk_a_strides, r, head, a, a_count, b_dka * scale, D, BLOCK_D, FULL)


@triton.jit(do_not_specialize=["n", "m", "heads", "longest", "max_lag", "chunks", "problems"])
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
    lse_left,  # [R, heads, N] float32, in units of log2 and finite
    lse_right,  # [R, heads, M] float32
    delta_left,  # [R, heads, N] float32
    delta_right,  # [R, heads, M] float32
    dlag_bias,  # [R, chunks, heads, 2 longest + 1] float32, each chunk's share
    scale, n, m, heads, longest, max_lag, chunks,
    problems,  # read by the tuner alone
    D: tl.constexpr, DV: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_DV: tl.constexpr,
    WIDE: tl.constexpr,  # offsets within a problem need 64 bits
    BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of BLOCK lags, over the left steps of one of `chunks` parts.

    The pairs of BLOCK left steps that have these lags lie in a tile of BLOCK by 2 BLOCK, so that the work is
    that of a band as wide as the bias.
    """
    scale = tl.cast(scale, tl.float32) * LOG2_E
    lag_blocks = tl.cdiv(2 * longest + 1, BLOCK)
    part = tl.program_id(0) // lag_blocks
    r, head = problem_of(part // chunks, heads)
    problem, chunk = (part // chunks).to(tl.int64), part % chunks
    index = tl.program_id(0) % lag_blocks * BLOCK + tl.arange(0, BLOCK)
    first_lag = tl.program_id(0) % lag_blocks * BLOCK - longest

    b_sums = tl.zeros([BLOCK], tl.float32)
    chunk_size = tl.cdiv(tl.cdiv(n, BLOCK), chunks) * BLOCK
    # Left steps whose window of right steps lies outside the problem add nothing.
    start = tl.maximum(chunk * chunk_size, (-first_lag - 2 * BLOCK) // BLOCK * BLOCK)
    stop = tl.minimum(tl.minimum((chunk + 1) * chunk_size, n), m - first_lag)
    for i_first in range(start, stop, BLOCK):
        i = steps(i_first, BLOCK, WIDE)
        j = steps(i_first + first_lag, 2 * BLOCK, WIDE)
        lag = j[None, :] - i[:, None]
        m_pairs = pairs(i, j, n, m, lag, max_lag)
        b_bias = bias_tile(lag_bias, head, longest, first_lag, 1, BLOCK, 2 * BLOCK)  # [N, 2 N]
        b_ql = load_tile(q_left, q_left_strides, r, head, i, n, D, BLOCK_D, False)  # [N, D]
        b_qr = load_tile(q_right, q_right_strides, r, head, j, m, D, BLOCK_D, False)  # [2 N, D]
        b_vl = load_tile(v_left, v_left_strides, r, head, i, n, DV, BLOCK_DV, False)  # [N, DV]
        b_vr = load_tile(v_right, v_right_strides, r, head, j, m, DV, BLOCK_DV, False)  # [2 N, DV]
        b_dol = load_tile(do_left, do_left_strides, r, head, i, n, DV, BLOCK_DV, False)  # [N, DV]
        b_dor = load_tile(do_right, do_right_strides, r, head, j, m, DV, BLOCK_DV, False)  # [2 N, DV]
        b_lse_left = load_row(lse_left + problem * n, i, n, False)
        b_lse_right = load_row(lse_right + problem * m, j, m, False)
        b_delta_left = load_row(delta_left + problem * n, i, n, False)
        b_delta_right = load_row(delta_right + problem * m, j, m, False)
        if k_left is None:
            b_kr = b_qr
        else:
            b_kr = load_tile(k_right, k_right_strides, r, head, j, m, D, BLOCK_D, False)  # [2 N, D]

        b_s = logits(b_ql, b_kr, b_bias, scale)  # [N, 2 N]
        b_ds = tl.exp2(b_s - b_lse_left[:, None]) * (product(b_dol, tl.trans(b_vr)) - b_delta_left[:, None])
        b_ds = tl.where(m_pairs & (b_s != float("-inf")), b_ds, 0.0)
        if k_left is not None:
            b_kl = load_tile(k_left, k_left_strides, r, head, i, n, D, BLOCK_D, False)  # [N, D]
            b_s = logits(b_kl, b_qr, b_bias, scale)
        b_dp = product(b_vl, tl.trans(b_dor))
        b_ds_right = tl.exp2(b_s - b_lse_right[None, :]) * (b_dp - b_delta_right[None, :])
        b_ds += tl.where(m_pairs & (b_s != float("-inf")), b_ds_right, 0.0)
        b_sums += sum_lags(b_ds, 0, BLOCK)

    p_sums = dlag_bias + (((r * chunks + chunk) * heads) + head) * (2 * longest + 1) + index
    tl.store(p_sums, b_sums, mask=index < 2 * longest + 1)
