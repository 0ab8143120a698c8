"""Triton kernels of the depth loss: one pass over strips of the images, then a sum over the strips.

A program goes down a strip of `ROWS` rows and `COLUMNS` columns, one pixel of a row per lane, and keeps the
last two rows of what it needs in registers. A lane cannot see its neighbours' registers, so it evaluates the
derivatives at its own column and at both columns beside it: arithmetic that the memory's pace leaves free.
Partial sums are added in a fixed order by one program, without atomics.
"""
# mypy: disallow-untyped-defs=False

import triton
import triton.language as tl

EPSILON = tl.constexpr(1e-6)  # m²


@triton.jit
def column(images, strides, b, x):
    """Where the pixels x [COLUMNS] of row 0 are."""
    return images + (b * strides[0] + x.to(tl.int64) * strides[2])


@triton.jit
def load_target(p_target, inside):
    """Pixels [COLUMNS], NaN where nothing was measured: it spreads to what the erosion takes away."""
    target = tl.load(p_target, mask=inside, other=0.0).to(tl.float32)
    return tl.where((target > 0) & (target < float("inf")), target, float("nan"))


@triton.jit
def sign(x):
    """-1, 0 or 1; 0 for NaN."""
    return (x > 0).to(tl.float32) - (x < 0).to(tl.float32)


@triton.jit
def derive(p_left, p_right, p_steps, t_left, t_right, t_steps, edge_weight, smooth_weight):
    """Terms of one pixel and their derivatives.

    `*_left` and `*_right` are the rows' sums 1, 2, 1 in the columns beside the pixel, `*_steps` the sum
    1, 2, 1 of the rows' differences over the three columns. Returns edge, smooth and inner (mₑ), and the
    derivatives of edge_weight · edge + smooth_weight · smooth with respect to gₓ and g_y of the prediction.
    """
    tx = t_right - t_left
    t_square = tx * tx + (t_steps * t_steps + EPSILON)
    inner = t_square == t_square
    px = p_right - p_left
    p_magnitude = tl.sqrt(px * px + (p_steps * p_steps + EPSILON))
    t_magnitude = tl.sqrt(t_square)
    excess = p_magnitude - t_magnitude
    closeness = tl.exp(-t_magnitude)
    edge = tl.where(inner, tl.abs(excess), 0.0)
    smooth = tl.where(inner, (tl.abs(px) + tl.abs(p_steps)) * closeness, 0.0)
    push = edge_weight * sign(excess) / p_magnitude
    pull = smooth_weight * closeness
    along_x = tl.where(inner, px * push + sign(px) * pull, 0.0)
    along_y = tl.where(inner, p_steps * push + sign(p_steps) * pull, 0.0)
    return edge, smooth, inner, along_x, along_y


@triton.jit(do_not_specialize=["height", "width"])
def sweep(
    pred, pred_strides,  # [B, H, W]
    target, target_strides,  # [B, H, W]
    weights,  # [3] float32
    coded,  # [B, H, W] float32, or None where no gradient is wanted
    partial,  # [5, programs] float32: the sums of recon, edge, smooth, m and mₑ
    height, width,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    strips = tl.cdiv(width, COLUMNS)
    bands = tl.cdiv(height, ROWS)
    program = tl.program_id(0)
    b = (program // (strips * bands)).to(tl.int64)
    first = program // strips % bands * ROWS
    x = program % strips * COLUMNS + tl.arange(0, COLUMNS)
    # Columns x - 2 .. x + 2 are called a, b, c, d, e.
    in_c = x < width
    in_a, in_b = (x >= 2) & (x - 2 < width), (x >= 1) & (x - 1 < width)
    in_d, in_e = x + 1 < width, x + 2 < width
    p_pa, p_pb = column(pred, pred_strides, b, x - 2), column(pred, pred_strides, b, x - 1)
    p_pc, p_pd = column(pred, pred_strides, b, x), column(pred, pred_strides, b, x + 1)
    p_pe = column(pred, pred_strides, b, x + 2)
    p_ta, p_tb = column(target, target_strides, b, x - 2), column(target, target_strides, b, x - 1)
    p_tc, p_td = column(target, target_strides, b, x), column(target, target_strides, b, x + 1)
    p_te = column(target, target_strides, b, x + 2)
    edge_weight, smooth_weight = tl.load(weights + 1), tl.load(weights + 2)

    zero = tl.zeros([COLUMNS], tl.float32)
    s_recon, s_edge, s_smooth, s_valid, s_inner = zero, zero, zero, zero, zero
    begun, carried = zero, zero  # of the gradient: the row above the centre, and the centre row
    # The two rows above the newest. What starts as the very same tensor as its successor in `x0 = x1` would
    # be taken for a constant of the loop by Triton's compiler (3.8): hence a tensor of its own for the older.
    older = tl.zeros([COLUMNS], tl.float32)
    difference_0, difference_1 = older, zero  # pred - target
    pa0, pb0, pc0, pd0, pe0 = older, older, older, older, older
    pa1, pb1, pc1, pd1, pe1 = zero, zero, zero, zero, zero
    nothing = zero + float("nan")
    missing = older + float("nan")
    ta0, tb0, tc0, td0, te0 = missing, missing, missing, missing, missing
    ta1, tb1, tc1, td1, te1 = nothing, nothing, nothing, nothing, nothing
    for step in range(ROWS + 4):
        y = first + step - 2
        in_height = (y >= 0) & (y < height)
        p_row = y.to(tl.int64) * pred_strides[1]
        pa = tl.load(p_pa + p_row, mask=in_a & in_height, other=0.0).to(tl.float32)
        pb = tl.load(p_pb + p_row, mask=in_b & in_height, other=0.0).to(tl.float32)
        pc = tl.load(p_pc + p_row, mask=in_c & in_height, other=0.0).to(tl.float32)
        pd = tl.load(p_pd + p_row, mask=in_d & in_height, other=0.0).to(tl.float32)
        pe = tl.load(p_pe + p_row, mask=in_e & in_height, other=0.0).to(tl.float32)
        t_row = y.to(tl.int64) * target_strides[1]
        ta = load_target(p_ta + t_row, in_a & in_height)
        tb = load_target(p_tb + t_row, in_b & in_height)
        tc = load_target(p_tc + t_row, in_c & in_height)
        td = load_target(p_td + t_row, in_d & in_height)
        te = load_target(p_te + t_row, in_e & in_height)

        # The newest row: depth.
        difference = pc - tc
        own = in_c & (y >= first) & (y < first + ROWS)
        valid = own & (tc == tc)
        s_recon += tl.where(valid, tl.abs(difference), 0.0)
        s_valid += valid.to(tl.float32)

        # The row above it: derivatives, with sums 1, 2, 1 and differences down the columns.
        psa, psb, psc = pa0 + 2 * pa1 + pa, pb0 + 2 * pb1 + pb, pc0 + 2 * pc1 + pc
        psd, pse = pd0 + 2 * pd1 + pd, pe0 + 2 * pe1 + pe
        pda, pdb, pdc, pdd, pde = pa - pa0, pb - pb0, pc - pc0, pd - pd0, pe - pe0
        tsa, tsb, tsc = ta0 + 2 * ta1 + ta, tb0 + 2 * tb1 + tb, tc0 + 2 * tc1 + tc
        tsd, tse = td0 + 2 * td1 + td, te0 + 2 * te1 + te
        # The stencils leave out the pixel itself, the erosion does not.
        tda, tde = ta - ta0, te - te0
        tdb, tdc, tdd = tb - tb0 + 0 * tb1, tc - tc0 + 0 * tc1, td - td0 + 0 * td1
        edge, smooth, inner, _, ay = derive(
            psb, psd, pdb + 2 * pdc + pdd, tsb, tsd, tdb + 2 * tdc + tdd, edge_weight, smooth_weight
        )
        own = in_c & (y > first) & (y <= first + ROWS)
        s_edge += tl.where(own, edge, 0.0)
        s_smooth += tl.where(own, smooth, 0.0)
        s_inner += (own & inner).to(tl.float32)

        if coded is not None:
            _, _, _, ax_left, ay_left = derive(
                psa, psc, pda + 2 * pdb + pdc, tsa, tsc, tda + 2 * tdb + tdc, edge_weight, smooth_weight
            )
            _, _, _, ax_right, ay_right = derive(
                psc, pse, pdc + 2 * pdd + pde, tsc, tse, tdc + 2 * tdd + tde, edge_weight, smooth_weight
            )
            # The transposed stencils; the row above the centre has then seen all its neighbours.
            across = ax_left - ax_right
            down = ay_left + 2 * ay + ay_right
            gradient = begun + (across - down)
            begun = carried + 2 * across
            carried = across + down
            bits = gradient.to(tl.int32, bitcast=True) & ~3
            bits = bits | (difference_0 > 0).to(tl.int32) | (3 * (difference_0 < 0).to(tl.int32))
            done = y - 2
            at = (b * height + done) * width + x
            tl.store(
                coded + at,
                bits.to(tl.float32, bitcast=True),
                mask=in_c & (done >= first) & (done < first + ROWS) & (done < height),
            )
        difference_0, difference_1 = difference_1, difference
        pa0, pb0, pc0, pd0, pe0 = pa1, pb1, pc1, pd1, pe1
        pa1, pb1, pc1, pd1, pe1 = pa, pb, pc, pd, pe
        ta0, tb0, tc0, td0, te0 = ta1, tb1, tc1, td1, te1
        ta1, tb1, tc1, td1, te1 = ta, tb, tc, td, te

    programs = tl.num_programs(0)
    tl.store(partial + program, tl.sum(s_recon))
    tl.store(partial + programs + program, tl.sum(s_edge))
    tl.store(partial + 2 * programs + program, tl.sum(s_smooth))
    tl.store(partial + 3 * programs + program, tl.sum(s_valid))
    tl.store(partial + 4 * programs + program, tl.sum(s_inner))


@triton.jit
def add_up(partial, count, BLOCK: tl.constexpr):
    """The sum of partial [count] in float64."""
    total = tl.zeros([BLOCK], tl.float64)
    for start in range(0, count, BLOCK):
        i = start + tl.arange(0, BLOCK)
        total += tl.load(partial + i, mask=i < count, other=0.0).to(tl.float64)
    return tl.sum(total)


@triton.jit(do_not_specialize=["programs"])
def finish(
    partial,  # [5, programs] float32
    weights,  # [3] float32
    total,  # [] float32
    terms,  # [3] float32
    scales,  # [2] float32
    programs,
    BLOCK: tl.constexpr,
):  # fmt: skip
    valid = tl.maximum(add_up(partial + 3 * programs, programs, BLOCK), 1.0)
    inner = tl.maximum(add_up(partial + 4 * programs, programs, BLOCK), 1.0)
    recon = add_up(partial, programs, BLOCK) / valid
    edge = add_up(partial + programs, programs, BLOCK) / inner
    smooth = add_up(partial + 2 * programs, programs, BLOCK) / inner
    recon_weight = tl.load(weights)
    tl.store(terms, recon.to(tl.float32))
    tl.store(terms + 1, edge.to(tl.float32))
    tl.store(terms + 2, smooth.to(tl.float32))
    weighted = recon_weight * recon + tl.load(weights + 1) * edge + tl.load(weights + 2) * smooth
    tl.store(total, weighted.to(tl.float32))
    tl.store(scales, (recon_weight / valid).to(tl.float32))
    tl.store(scales + 1, (1.0 / inner).to(tl.float32))


@triton.jit(do_not_specialize=["count"])
def decode(
    grad_total,  # [] float32
    coded,  # [count] float32
    scales,  # [2] float32
    grad_pred,  # [count]
    count,
    BLOCK: tl.constexpr,
):  # fmt: skip
    upstream = tl.load(grad_total)
    recon_scale, edge_scale = upstream * tl.load(scales), upstream * tl.load(scales + 1)
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    bits = tl.load(coded + i, mask=i < count, other=0.0).to(tl.int32, bitcast=True)
    gradient = (bits & ~3).to(tl.float32, bitcast=True) * edge_scale
    code = bits & 3
    gradient += tl.where(code == 1, recon_scale, tl.where(code == 3, -recon_scale, 0.0))
    tl.store(grad_pred + i, gradient.to(grad_pred.dtype.element_ty), mask=i < count)
