"""The forward kernel for bf16 maps whose sums are matrix products, made by the matrix units of a card.

With `e_l[j] = e^(scores[j,l] - s)` and `F_l[t] = weight[t,l] e^(bias[t,l] - top_l)`, `F0` likewise without
weight, the attention is a convolution of what is at each position, and so are its derivatives::

    out[i]  = sum_l 1/Z_l[i] sum_j F_l[j - i] (e_l[j] value[j])      Z_l[i] = sum_j F0_l[j - i] e_l[j]
    inner_l[i] = sum_c r_l[i] grad[i,c] sum_j F_l[j - i] (e_l[j] value[j,c])     r_l[i] = 1 / Z_l[i]
    d value[j] = sum_l e_l[j] T_l[j]                   T_l[j] = sum_i F_l[j - i] (r_l[i] grad[i])
    d scores[j,l] = e_l[j] ( T_l[j] . value[j] - sum_i F0_l[j - i] r_l[i] inner_l[i] )
    dF_l[t] = sum_i r_l[i] grad[i] . e_l[i + t] value[i + t]
    dF0_l[t] = - sum_i r_l[i] inner_l[i] e_l[i + t]

A patch of 16 windows and the K positions under it (or 16 positions and the K windows that hold them) make of
`F_l` one matrix (16, K) per head, the same for all patches: `lay_out` writes these. Exponentials and products
are rounded to bf16 as the operands of matrix units are; the sums are in fp32.

All exponentials of a patch are relative to one score `s`. Where a score or a bias is too far from the others
for that, a kernel sets the flag `far`, and the kernels that take each window by itself do the call again.
"""

import triton
import triton.language as tl

from qna.ops.learned_query.triton.primitives import inverse, log, true_sizes
from qna.ops.learned_query.triton.products_primitives import (
    LEAST,
    LOG2E,
    alarm,
    around,
    fenced,
    load_matrices,
    load_scores,
    load_values,
    owned,
    partition,
    place,
    product,
    representative,
    score_channels,
    spread,
    store_values,
    widened,
    window_at,
)


@triton.jit
def lay_out(
    tables, matrices, tops, far,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """The matrices of weight and bias: ((windows, positions), (F, F0), L, h, 16, K), and the largest biases.

    `TAPS` is a power of two that covers the taps.
    """
    CHUNKS: tl.constexpr = PATCH[3]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    KY: tl.constexpr = WINDOW[1]
    KX: tl.constexpr = WINDOW[2]
    K: tl.constexpr = PATCH[2] * PATCH[3]
    WIDTH: tl.constexpr = PATCH[1] + KX - 1
    pair = tl.program_id(0) % STEP
    flipped = tl.program_id(0) // STEP
    tl.store(far, 0)
    tap = tl.arange(0, TAPS)
    b = tl.load(tables[0] + tap * STEP + pair, mask=tap < KY * KX, other=float("-inf"))
    top = tl.max(b, 0)
    # a tap that is masked by -inf adds nothing, and loses nothing
    least = tl.min(tl.where(b > float("-inf"), b, float("inf")), 0)
    tl.store(tops + pair, top)
    a = tl.arange(0, 16)[:, None]
    q = tl.arange(0, PATCH[2])[None, :]
    for chunk in tl.static_range(CHUNKS):
        at = q + chunk * PATCH[2]
        ty = at // WIDTH - a // PATCH[1]
        tx = at % WIDTH - a % PATCH[1]
        real = (ty >= 0) & (ty < KY) & (tx >= 0) & (tx < KX)
        ty = tl.where(flipped == 1, KY - 1 - ty, ty)
        tx = tl.where(flipped == 1, KX - 1 - tx, tx)
        of = (ty * KX + tx) * STEP + pair
        b = tl.load(tables[0] + of, mask=real, other=float("-inf"))
        plain = tl.where(tl.exp(least - top) >= LEAST, tl.exp(b - top), float("nan"))
        to = matrices + ((flipped * 2 * STEP + pair) * 16 + a) * K + at
        tl.store(to + STEP * 16 * K, plain)
        if tables[1] is not None:
            plain *= tl.load(tables[1] + of, mask=real, other=0.0)
        tl.store(to, plain)


@triton.jit
def attend_by_products(
    maps, matrices, tops, results, far, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """Output, and the log-sum-exp of every window where `results` has room for it.

    Args:
        maps: scores and value.
        matrices: of bias and weight, as `lay_out` makes them.
        tops: the largest biases.
        results: out and lse, to be written; lse may be None.
        far: set to 1 where this kernel cannot tell; then all of its results are void.
        STRIDES: of scores, value and out.
        SIZES, WINDOW, CHANNELS, PATCH: as above.
    """
    CHUNKS: tl.constexpr = PATCH[3]
    SIZES = true_sizes(SIZES)
    L: tl.constexpr = CHANNELS[0]
    H: tl.constexpr = CHANNELS[1]
    D: tl.constexpr = CHANNELS[2]
    NP: tl.constexpr = PATCH[4]
    HB: tl.constexpr = PATCH[5]
    part, first, step, blocks = partition(SIZES[6] * SIZES[3], SIZES[4], SIZES[5], CHANNELS, PATCH)
    weighted = load_matrices(matrices, part, 0, 0, CHANNELS, PATCH)
    plain = load_matrices(matrices, part, 0, 1, CHANNELS, PATCH)
    pairs = score_channels(part, CHANNELS, PATCH)
    extent = tl.zeros((HB, 16, D), tl.float32)
    for block in range(first, blocks, step):
        b, z, y, x = place(block, SIZES[3], SIZES[4], SIZES[5], PATCH)
        jy, jx = y - WINDOW[10], x - WINDOW[11]
        stand = representative(
            maps[0], b, z, jy + WINDOW[1] // 2, jx + WINDOW[2] // 2, pairs, STRIDES[0], SIZES, CHANNELS, PATCH
        )
        sums = tl.zeros((L * HB, 16, NP * D), tl.float32)
        totals = tl.zeros((L * HB, 16, NP * D), tl.float32)
        for chunk in tl.static_range(CHUNKS):
            dy, dx, inside = around(jy, jx, SIZES[1], SIZES[2], chunk, WINDOW, PATCH)
            v = load_values(maps[1], b, z, jy, jx, dy, dx, inside, part, STRIDES[1], CHANNELS, PATCH)
            s = load_scores(maps[0], b, z, jy, jx, dy, dx, inside, pairs, STRIDES[0], CHANNELS)
            e = fenced(tl.exp2((s - stand[None, :, :, :]) * LOG2E))
            sums = product(weighted[chunk], spread(v, e, CHANNELS, PATCH), sums)
            totals = product(plain[chunk], widened(e, CHANNELS, PATCH), totals)
        ay, ax, real = owned(y, x, SIZES[4], SIZES[5], PATCH)
        totals = tl.reshape(totals, (L, HB, 16, NP, D))
        # patches beyond the map hold no positions
        ones = inverse(totals)
        # over axes that lie in registers
        extent += tl.sum(tl.where(real[None, :, :, None], tl.sum(totals + ones, 0), 0.0), 2)
        out = tl.sum(tl.reshape(sums, (L, HB, 16, NP, D)) * ones, 0)
        store_values(results[0], out, b, z, y, x, (ay, ax), real, part, STRIDES[2], CHANNELS, PATCH)
        if results[1] is not None:
            lse = log(tl.permute(tl.max(totals, 4), (2, 3, 0, 1))) + stand[None, :, :, :]
            lse += tl.load(tops + pairs)[None, None, :, :]
            to = results[1] + window_at(b, z, y, x, SIZES, CHANNELS)
            to += (ay * SIZES[5] + ax)[:, :, None, None] * (L * H)
            tl.store(to + pairs[None, None, :, :], lse, mask=real[:, :, None, None])
    alarm(far, extent)
