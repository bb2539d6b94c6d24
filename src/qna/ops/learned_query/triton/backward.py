"""The backward kernels in Triton: no atomics, so that two runs agree bit for bit.

With `p = e^(scores + bias - lse)` and `u = grad[i] . value[j]` under tap `t` of the window at `i`::

    inner[i,l] = sum_t p weight u                               `sum_inside`: a program owns windows
    d scores[j,l] = sum_(i,t) p (weight u - inner[i,l])         `gather`: a program owns map positions, and
    d value[j] = sum_(i,t) ( sum_l weight p ) grad[i]            visits the windows that hold them
    d bias[t,l] = sum_i p (weight u - inner[i,l])               partial sums of `gather`, added in a fixed
    d weight[t,l] = sum_i p u                                    order, by `add_up`
"""

import triton
import triton.language as tl

from qna.ops.learned_query.triton.primitives import (
    channels,
    exp,
    load,
    load_table,
    offsets,
    over_channels,
    positions,
    share_of_windows,
    true_sizes,
    under,
    window_offsets,
)


@triton.jit
def sum_inside(
    maps, bias, weight, grad, lse, inner, far, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The inner sum of the softmax's derivative, (B, *space', L, h) in fp32.

    `maps` are scores and value; `STRIDES` those of scores, value and grad. With a flag `far` nothing is done
    but if it is set.
    """
    if far is not None:  # noqa: SIM102 (the outer condition is the compiler's)
        if tl.load(far) == 0:
            return
    scores, value = maps[0], maps[1]
    SIZES = true_sizes(SIZES)
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    P: tl.constexpr = BLOCK[0] * BLOCK[1]
    place, layout = share_of_windows(SIZES, CHANNELS, BLOCK)
    b, z, y, x = place
    at_score, score_mask, at_value, value_mask = layout

    real = over_channels((y < SIZES[4]) & (x < SIZES[5]))
    at_g = offsets(b, z, y, x, STRIDES[2], CHANNELS) + at_value
    g = load(grad + at_g, real, value_mask, EXACT, 0.0)
    at_w = window_offsets(b, z, y, x, SIZES, CHANNELS) + at_score
    log = load(lse + at_w, real, score_mask, EXACT, float("inf"))
    result = tl.full((BLOCK[2], P, BLOCK[3], BLOCK[4]), 0.0, tl.float32)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = ((tz * WINDOW[1] + ty) * WINDOW[2] + tx) * STEP + at_score
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)
                at_s = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS) + at_score
                at_v = offsets(b, jz, jy, jx, STRIDES[1], CHANNELS) + at_value
                v = load(value + at_v, inside, value_mask, EXACT, 0.0)
                s = load(scores + at_s, inside, score_mask, EXACT, float("-inf"))
                p = exp(s + load_table(bias + tap, score_mask, EXACT) - log)
                if weight is not None:
                    p *= load_table(weight + tap, score_mask, EXACT)
                result += p * tl.sum(g * v, 0)[None, :, :, :]
    tl.store(inner + at_w, result, mask=real & score_mask)


@triton.jit
def gather(  # noqa: PLR0915 (a kernel calls nothing that is not compiled with it)
    maps, tables, windows, grads, partials, far, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of scores and value, and each program's share of those of bias and weight.

    Args:
        maps: scores and value.
        tables: bias and weight, fp32.
        windows: grad, lse, inner.
        grads: of scores and value, to be written.
        partials: (programs, taps, L, h) in fp32 of bias and weight, or None where not wanted. A program owns
            a row, and adds to it the blocks of its run, one after the other.
        far: None, or a flag without which nothing is done.
        STRIDES: of scores, value, grad, and the gradients of scores and value.
        SIZES, WINDOW, CHANNELS, BLOCK: as in `primitives`.
    """
    if far is not None:  # noqa: SIM102 (the outer condition is the compiler's)
        if tl.load(far) == 0:
            return
    SIZES = true_sizes(SIZES)
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    P: tl.constexpr = BLOCK[0] * BLOCK[1]
    parts = tl.cdiv(CHANNELS[1], BLOCK[3] * BLOCK[4])
    program = tl.program_id(0) // parts
    programs = tl.num_programs(0) // parts
    part = tl.program_id(0) % parts
    at_score, score_mask, at_value, value_mask = channels(part, CHANNELS, BLOCK)
    row = program.to(tl.int64) * (WINDOW[0] * WINDOW[1] * WINDOW[2] * STEP)
    blocks = tl.cdiv(SIZES[1], BLOCK[0]) * tl.cdiv(SIZES[2], BLOCK[1]) * SIZES[0] * SIZES[6]
    run = tl.cdiv(blocks, programs)
    for block in range(program * run, min(program * run + run, blocks)):
        later = score_mask & (block > program * run)
        b, z, y, x = positions(block, SIZES[0], SIZES[1], SIZES[2], BLOCK)  # pyright: ignore
        real = over_channels((y < SIZES[1]) & (x < SIZES[2]))
        at_s = offsets(b, z, y, x, STRIDES[0], CHANNELS) + at_score
        at_v = offsets(b, z, y, x, STRIDES[1], CHANNELS) + at_value
        s = load(maps[0] + at_s, real, score_mask, EXACT, float("-inf"))
        v = load(maps[1] + at_v, real, value_mask, EXACT, 0.0)
        d_score = tl.full((BLOCK[2], P, BLOCK[3], BLOCK[4]), 0.0, tl.float32)
        d_value = tl.full((BLOCK[5], P, BLOCK[3], BLOCK[4]), 0.0, tl.float32)
        for tz in range(WINDOW[0]):
            for ty in range(WINDOW[1]):
                for tx in range(WINDOW[2]):
                    tap = ((tz * WINDOW[1] + ty) * WINDOW[2] + tx) * STEP + at_score
                    iz, iy, ix, held = over(z, y, x, tz, ty, tx, SIZES, WINDOW)
                    at_g = offsets(b, iz, iy, ix, STRIDES[2], CHANNELS) + at_value
                    at_w = window_offsets(b, iz, iy, ix, SIZES, CHANNELS) + at_score
                    g = load(windows[0] + at_g, held, value_mask, EXACT, 0.0)
                    log = load(windows[1] + at_w, held, score_mask, EXACT, float("inf"))
                    inner = load(windows[2] + at_w, held, score_mask, EXACT, 0.0)
                    p = exp(s + load_table(tables[0] + tap, score_mask, EXACT) - log)
                    u = p * tl.sum(g * v, 0)[None, :, :, :]
                    if tables[1] is None:
                        d_value += tl.sum(p, 0)[None, :, :, :] * g
                        d = u - p * inner
                    else:
                        w = load_table(tables[1] + tap, score_mask, EXACT)
                        d_value += tl.sum(p * w, 0)[None, :, :, :] * g
                        d = w * u - p * inner
                    d_score += d
                    if partials[0] is not None:
                        add(partials[0] + row + tap, d, score_mask, later)
                    if partials[1] is not None:
                        add(partials[1] + row + tap, u, score_mask, later)
        at_s = offsets(b, z, y, x, STRIDES[3], CHANNELS) + at_score
        at_v = offsets(b, z, y, x, STRIDES[4], CHANNELS) + at_value
        tl.store(grads[0] + at_s, d_score.to(grads[0].dtype.element_ty), mask=real & score_mask)
        tl.store(grads[1] + at_v, d_value.to(grads[1].dtype.element_ty), mask=real & value_mask)
        if partials[0] is not None:
            tl.debug_barrier()  # other threads may read these sums in the next block


@triton.jit
def add(sums, tile, mask, later):
    """Add a tile, summed over its positions, to `sums`; the first time overwrite what is there."""
    share = tl.sum(tile, 1)[:, None, :, :]
    tl.store(sums, share + tl.load(sums, mask=later, other=0.0), mask=mask)


@triton.jit
def over(z, y, x, tz, ty, tx, SIZES, WINDOW: tl.constexpr):
    """The windows that hold the map positions z, y, x under one tap, and which (1, P, 1, 1) there are."""
    fz = z + WINDOW[9] - tz * WINDOW[6]
    fy = y + WINDOW[10] - ty * WINDOW[7]
    fx = x + WINDOW[11] - tx * WINDOW[8]
    # division rounds to zero here, so negative numerators are refused first
    held = (fz >= 0) & (fy >= 0) & (fx >= 0)
    held = held & (fz % WINDOW[3] == 0) & (fy % WINDOW[4] == 0) & (fx % WINDOW[5] == 0)
    iz, iy, ix = fz // WINDOW[3], fy // WINDOW[4], fx // WINDOW[5]
    return iz, iy, ix, over_channels(held & (iz < SIZES[3]) & (iy < SIZES[4]) & (ix < SIZES[5]))


@triton.jit
def add_up(partials, sums, far, rows, numbers, SUMS: tl.constexpr):
    """Sums of the rows of one or two tables of `numbers` columns; both counts come as 2n + 1."""
    if far is not None:  # noqa: SIM102 (the outer condition is the compiler's)
        if tl.load(far) == 0:
            return
    rows = rows >> 1
    numbers = numbers >> 1
    column = tl.program_id(0) * SUMS + tl.arange(0, SUMS)[None, :]
    for i in tl.static_range(2):  # pyright: ignore
        if partials[i] is not None:
            total = tl.zeros((64, SUMS), tl.float32)
            for start in range(0, rows, 64):
                row = start + tl.arange(0, 64)[:, None]
                at = partials[i] + row.to(tl.int64) * numbers + column
                total += tl.load(at, mask=(row < rows) & (column < numbers), other=0.0)
            to = sums[i] + column
            tl.store(to, tl.sum(total, 0)[None, :], mask=column < numbers)
