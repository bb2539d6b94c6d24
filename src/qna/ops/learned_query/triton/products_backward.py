"""The backward kernels for bf16 maps by matrix products; the formulas are in `products`.

No atomics: two runs agree bit for bit.
"""

import triton
import triton.language as tl

from qna.ops.learned_query.triton.primitives import true_sizes
from qna.ops.learned_query.triton.products_primitives import (
    LOG2E,
    alarm,
    around,
    corner,
    fenced,
    load_matrices,
    load_scores,
    load_values,
    near,
    over_rows,
    owned,
    partition,
    place,
    product,
    repeated,
    representative,
    score_channels,
    shares,
    spread,
    store_values,
    widened,
    window_at,
)


@triton.jit
def sum_inside_by_products(
    maps, matrices, tops, windows, inner, far, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """The inner sum of the softmax's derivative, (B, *space', L, h) in fp32.

    `windows` are grad and lse; `STRIDES` those of scores, value and grad.
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
    pairs = score_channels(part, CHANNELS, PATCH)
    extent = tl.zeros((16, NP, L, HB), tl.float32)
    for block in range(first, blocks, step):
        b, z, y, x = place(block, SIZES[3], SIZES[4], SIZES[5], PATCH)
        jy, jx = y - WINDOW[10], x - WINDOW[11]
        stand = representative(
            maps[0], b, z, jy + WINDOW[1] // 2, jx + WINDOW[2] // 2, pairs, STRIDES[0], SIZES, CHANNELS, PATCH
        )
        sums = tl.zeros((L * HB, 16, NP * D), tl.float32)
        for chunk in tl.static_range(CHUNKS):
            dy, dx, inside = around(jy, jx, SIZES[1], SIZES[2], chunk, WINDOW, PATCH)
            v = load_values(maps[1], b, z, jy, jx, dy, dx, inside, part, STRIDES[1], CHANNELS, PATCH)
            s = load_scores(maps[0], b, z, jy, jx, dy, dx, inside, pairs, STRIDES[0], CHANNELS)
            e = fenced(tl.exp2((s - stand[None, :, :, :]) * LOG2E))
            sums = product(weighted[chunk], spread(v, e, CHANNELS, PATCH), sums)
        ay, ax, real = owned(y, x, SIZES[4], SIZES[5], PATCH)
        g = load_values(windows[0], b, z, y, x, ay, ax, real, part, STRIDES[2], CHANNELS, PATCH)
        at = window_at(b, z, y, x, SIZES, CHANNELS) + (ay * SIZES[5] + ax)[:, :, None, None] * (L * H)
        at += pairs[None, None, :, :]
        r, lost = shares(windows[1] + at, real, stand, tl.load(tops + pairs))
        extent += lost
        g = over_rows(g, CHANNELS).to(tl.float32)[None, :, :, :, :]
        dots = tl.sum(tl.reshape(sums, (L, HB, 16, NP, D)) * g, 4)
        tl.store(inner + at, r * tl.permute(dots, (2, 3, 0, 1)), mask=real[:, :, None, None])
    alarm(far, extent)


@triton.jit
def gather_by_products(
    maps, matrices, tops, windows, grads, far, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """Gradients of scores and value.

    Args:
        maps: scores and value.
        matrices: of bias and weight, as `lay_out` makes them.
        tops: the largest biases.
        windows: grad, lse, inner.
        grads: of scores and value, to be written.
        far: set to 1 where this kernel cannot tell; then all of its results are void.
        STRIDES: of scores, value, grad, and the gradients of scores and value.
        SIZES, WINDOW, CHANNELS, PATCH: as above.
    """
    CHUNKS: tl.constexpr = PATCH[3]
    SIZES = true_sizes(SIZES)
    L: tl.constexpr = CHANNELS[0]
    H: tl.constexpr = CHANNELS[1]
    D: tl.constexpr = CHANNELS[2]
    NP: tl.constexpr = PATCH[4]
    HB: tl.constexpr = PATCH[5]
    part, first, step, blocks = partition(SIZES[6] * SIZES[0], SIZES[1], SIZES[2], CHANNELS, PATCH)
    weighted = load_matrices(matrices, part, 1, 0, CHANNELS, PATCH)
    plain = load_matrices(matrices, part, 1, 1, CHANNELS, PATCH)
    pairs = score_channels(part, CHANNELS, PATCH)
    CHUNK: tl.constexpr = PATCH[2]
    extent = tl.zeros((CHUNK, NP, L, HB), tl.float32)
    for block in range(first, blocks, step):
        b, z, y, x = place(block, SIZES[0], SIZES[1], SIZES[2], PATCH)
        # the first windows that hold the first position
        iy, ix = y + WINDOW[10] - WINDOW[1] + 1, x + WINDOW[11] - WINDOW[2] + 1
        stand = representative(maps[0], b, z, y, x, pairs, STRIDES[0], SIZES, CHANNELS, PATCH)
        sums = tl.zeros((L * HB, 16, NP * D), tl.float32)
        inners = tl.zeros((L * HB, 16, NP * D), tl.float32)
        at = window_at(b, z, iy, ix, SIZES, CHANNELS)
        for chunk in tl.static_range(CHUNKS):
            dy, dx, held = around(iy, ix, SIZES[4], SIZES[5], chunk, WINDOW, PATCH)
            g = load_values(windows[0], b, z, iy, ix, dy, dx, held, part, STRIDES[2], CHANNELS, PATCH)
            of = (dy * SIZES[5] + dx)[:, :, None, None] * (L * H) + pairs[None, None, :, :]
            inner = tl.load(windows[2] + at + of, mask=held[:, :, None, None], other=0.0)
            r, lost = shares(windows[1] + at + of, held, stand, tl.load(tops + pairs))
            extent += lost
            ri = fenced(r * inner)
            sums = product(weighted[chunk], spread(g, fenced(r), CHANNELS, PATCH), sums)
            inners = product(plain[chunk], widened(ri, CHANNELS, PATCH), inners)
        ay, ax, real = owned(y, x, SIZES[1], SIZES[2], PATCH)
        v = load_values(maps[1], b, z, y, x, ay, ax, real, part, STRIDES[1], CHANNELS, PATCH)
        s = load_scores(maps[0], b, z, y, x, ay, ax, real, pairs, STRIDES[0], CHANNELS)
        e = tl.exp2((s - stand[None, :, :, :]) * LOG2E)
        t = tl.reshape(sums, (L, HB, 16, NP, D))
        v = over_rows(v, CHANNELS).to(tl.float32)[None, :, :, :, :]
        d_score = tl.sum(t * v - tl.reshape(inners, (L, HB, 16, NP, D)) * (1.0 / D), 4)
        d_score = e * tl.permute(d_score, (2, 3, 0, 1))
        to = grads[0] + corner(b, z, y, x, STRIDES[3], CHANNELS)
        to += near(ay, ax, STRIDES[3], CHANNELS)[:, :, None, None] + pairs[None, None, :, :]
        tl.store(to, d_score.to(grads[0].dtype.element_ty), mask=real[:, :, None, None])
        d_value = tl.sum(tl.permute(e, (2, 3, 0, 1))[:, :, :, :, None] * t, 0)
        store_values(grads[1], d_value, b, z, y, x, (ay, ax), real, part, STRIDES[4], CHANNELS, PATCH)
    alarm(far, extent)


@triton.jit
def correlate(
    maps, tops, windows, partials, far, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr,
):  # fmt: skip
    """Each program's share of the gradients of F and F0, as matrices (16, chunk) per query and head.

    Args:
        maps: scores and value.
        tops: the largest biases.
        windows: grad, lse, inner.
        partials: (programs, (F, F0), L, h, 16, K) in fp32, to be written.
        far: as in `gather_by_products`.
        STRIDES: of scores, value, grad.
        SIZES, WINDOW, CHANNELS, PATCH: as above.
    """
    SIZES = true_sizes(SIZES)
    L: tl.constexpr = CHANNELS[0]
    H: tl.constexpr = CHANNELS[1]
    CHUNK: tl.constexpr = PATCH[2]
    NP: tl.constexpr = PATCH[4]
    HB: tl.constexpr = PATCH[5]
    PARTS: tl.constexpr = H // HB
    JOBS: tl.constexpr = PARTS * PATCH[3]
    TIMES: tl.constexpr = 16 // NP if NP < 16 else 1
    job = tl.program_id(0) % JOBS
    part = job % PARTS
    chunk = job // PARTS
    pairs = score_channels(part, CHANNELS, PATCH)
    top = tl.load(tops + pairs)
    by_value = tl.zeros((L * HB, 16, CHUNK), tl.float32)
    by_total = tl.zeros((L * HB, 16, CHUNK), tl.float32)
    extent = tl.zeros((16, NP, L, HB), tl.float32)
    columns = tl.cdiv(SIZES[5], PATCH[1] * NP)
    blocks = SIZES[6] * SIZES[3] * tl.cdiv(SIZES[4], PATCH[0]) * columns
    for block in range(tl.program_id(0) // JOBS, blocks, tl.num_programs(0) // JOBS):
        b, z, y, x = place(block, SIZES[3], SIZES[4], SIZES[5], PATCH)
        jy, jx = y - WINDOW[10], x - WINDOW[11]
        stand = representative(
            maps[0], b, z, jy + WINDOW[1] // 2, jx + WINDOW[2] // 2, pairs, STRIDES[0], SIZES, CHANNELS, PATCH
        )
        ay, ax, real = owned(y, x, SIZES[4], SIZES[5], PATCH)
        at = window_at(b, z, y, x, SIZES, CHANNELS) + (ay * SIZES[5] + ax)[:, :, None, None] * (L * H)
        at += pairs[None, None, :, :]
        inner = tl.load(windows[2] + at, mask=real[:, :, None, None], other=0.0)
        g = load_values(windows[0], b, z, y, x, ay, ax, real, part, STRIDES[2], CHANNELS, PATCH)
        dy, dx, inside = around(jy, jx, SIZES[1], SIZES[2], chunk, WINDOW, PATCH)
        v = load_values(maps[1], b, z, jy, jx, dy, dx, inside, part, STRIDES[1], CHANNELS, PATCH)
        s = load_scores(maps[0], b, z, jy, jx, dy, dx, inside, pairs, STRIDES[0], CHANNELS)
        r, lost = shares(windows[1] + at, real, stand, top)
        extent += lost
        e = fenced(tl.exp2((s - stand[None, :, :, :]) * LOG2E))
        u = tl.permute(spread(v, e, CHANNELS, PATCH), (0, 2, 1))
        by_value = product(spread(g, fenced(r), CHANNELS, PATCH), u, by_value)
        # a product has at least 16 terms: each patch counts several times for a part
        ri = repeated(fenced(r * inner * (1.0 / TIMES)), TIMES, CHANNELS, PATCH)
        by_total = product(ri, tl.permute(repeated(e, TIMES, CHANNELS, PATCH), (0, 2, 1)), by_total)
    alarm(far, extent)
    STEP: tl.constexpr = L * H * 16 * CHUNK * PATCH[3]
    a = tl.arange(0, 16)[None, None, :, None]
    q = chunk * CHUNK + tl.arange(0, CHUNK)[None, None, None, :]
    to = (tl.program_id(0) // JOBS).to(tl.int64) * (2 * STEP)
    to += (pairs[:, :, None, None] * 16 + a) * (CHUNK * PATCH[3]) + q
    tl.store(partials + to, tl.reshape(by_value, (L, HB, 16, CHUNK)))
    tl.store(partials + to + STEP, tl.reshape(by_total, (L, HB, 16, CHUNK)))


@triton.jit
def fold(
    partials, programs, tables, tops, grads,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """Gradients of bias and weight, of one tap, query and head per program: sums over equal differences.

    Args:
        partials: what `correlate` wrote.
        programs: their number, as 2n + 1.
        tables: bias and weight, fp32.
        tops: the largest biases.
        grads: of bias and weight, to be written.
        WINDOW, CHANNELS, PATCH: as above.
        ROWS: of `partials` taken at a time.
    """
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    K: tl.constexpr = PATCH[2] * PATCH[3]
    pair = tl.program_id(0) % STEP
    tap = tl.program_id(0) // STEP
    a = tl.arange(0, 16)[None, :]
    q = (a // PATCH[1] + tap // WINDOW[2]) * (PATCH[1] + WINDOW[2] - 1) + a % PATCH[1] + tap % WINDOW[2]
    at = partials + (pair * 16 + a) * K + q
    by_value = tl.zeros((ROWS, 16), tl.float32)
    by_total = tl.zeros((ROWS, 16), tl.float32)
    programs = programs >> 1
    for start in range(0, programs, ROWS):
        row = start + tl.arange(0, ROWS)[:, None]
        of = at + row.to(tl.int64) * (2 * STEP * 16 * K)
        by_value += tl.load(of, mask=row < programs, other=0.0)
        by_total += tl.load(of + STEP * 16 * K, mask=row < programs, other=0.0)
    d_f = tl.sum(tl.sum(by_value, 1), 0)
    d_f0 = tl.sum(tl.sum(by_total, 1), 0)
    at = tap * STEP + pair
    factor = tl.exp(tl.load(tables[0] + at) - tl.load(tops + pair))
    weight = 1.0
    if tables[1] is not None:
        weight = tl.load(tables[1] + at)
        tl.store(grads[1] + at, factor * d_f)
    tl.store(grads[0] + at, factor * (weight * d_f - d_f0))
