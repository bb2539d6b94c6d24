"""The backward kernels in Triton: no atomics, so that two runs agree bit for bit.

With `p = e^(scores + bias - lse)` and `u = grad[i] . value[j]` under tap `t` of the window at `i`::

    delta[i,l] = sum_t p[t,l] weight[t,l] u[t]                      `inner`, one program per block of windows
    d scores[j,l] = sum_(i,t) p (weight u - delta[i,l])             `gather`, one program per blocks of
    d value[j] = sum_(i,t) ( sum_l weight p ) grad[i]                map positions, over the windows
    d bias[t,l] = sum_i p (weight u - delta[i,l])                    that hold them
    d weight[t,l] = sum_i p u
"""

import triton
import triton.language as tl

from qna.ops.learned_query.triton_forward import score, under
from qna.ops.learned_query.triton_tile import channels, load, load_table, offsets, positions


@triton.jit
def inner(
    scores, value, bias, weight, grad, lse, delta, STRIDES, SIZES, WINDOW,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The softmax's inner sum `delta` (B, *space', L, h) in fp32."""
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    heads = tl.cdiv(CHANNELS[1], BLOCK[3])
    pid = tl.program_id(0)
    b, z, y, x = positions(pid // heads, SIZES[3], SIZES[4], SIZES[5], BLOCK)
    at_score, score_mask, at_value, value_mask = channels(pid % heads * BLOCK[3], CHANNELS, BLOCK)

    real = ((y < SIZES[4]) & (x < SIZES[5]))[None, :, None]
    at = offsets(b, z, y, x, STRIDES[2], CHANNELS)
    g = load(grad + at[None, :, None] + at_value, real, value_mask, EXACT, 0.0)
    window = (((b * SIZES[3] + z) * SIZES[4] + y) * SIZES[5] + x)[None, :, None] * STEP + at_score
    log = load(lse + window, real, score_mask, EXACT, float("inf"))
    result = tl.zeros_like(log)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = (tz * WINDOW[1] + ty) * WINDOW[2] + tx
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)
                at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS)
                s = score(scores + at_score, bias + at_score, at, tap, inside, score_mask, EXACT, STEP)
                p = tl.exp(s - log)
                if weight is not None:
                    p *= load_table(weight + at_score + tap * STEP, score_mask, EXACT)
                at = offsets(b, jz, jy, jx, STRIDES[1], CHANNELS)
                v = load(
                    value + at[None, :, None] + at_value, inside[None, :, None], value_mask, EXACT, 0.0
                )
                result += p * tl.sum(g * v, 0)[None, :, :]
    tl.store(delta + window, result, mask=real & score_mask)


@triton.jit
def over(z, y, x, tz, ty, tx, SIZES, WINDOW):
    """The windows whose tap lies on the map positions z, y, x, and which of them exist."""
    fz = z + WINDOW[9] - tz * WINDOW[6]
    fy = y + WINDOW[10] - ty * WINDOW[7]
    fx = x + WINDOW[11] - tx * WINDOW[8]
    # C division rounds to zero, so negative numerators are refused first
    real = (fz >= 0) & (fy >= 0) & (fx >= 0)
    real = real & (fz % WINDOW[3] == 0) & (fy % WINDOW[4] == 0) & (fx % WINDOW[5] == 0)
    iz, iy, ix = fz // WINDOW[3], fy // WINDOW[4], fx // WINDOW[5]
    return iz, iy, ix, real & (iz < SIZES[3]) & (iy < SIZES[4]) & (ix < SIZES[5])


@triton.jit
def gather(
    maps, tables, windows, grads, partials, STRIDES, SIZES, WINDOW,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Gradients of scores and value, and each program's share of those of bias and weight.

    Args:
        maps: scores and value.
        tables: bias and weight, fp32.
        windows: grad, lse, delta.
        grads: of scores and value, to be written.
        partials: (programs, taps, L, h) in fp32 of bias and weight, or None where not wanted. A program owns
            a row and its blocks come in a fixed order.
    """
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    P: tl.constexpr = BLOCK[0] * BLOCK[1]
    heads = tl.cdiv(CHANNELS[1], BLOCK[3])
    program = tl.program_id(0) // heads
    programs = tl.num_programs(0) // heads
    at_score, score_mask, at_value, value_mask = channels(
        tl.program_id(0) % heads * BLOCK[3], CHANNELS, BLOCK
    )
    taps = WINDOW[0] * WINDOW[1] * WINDOW[2]
    mine = program.to(tl.int64) * taps * STEP + at_score  # this program's row of the partial sums
    blocks = tl.cdiv(SIZES[1], BLOCK[0]) * tl.cdiv(SIZES[2], BLOCK[1]) * SIZES[0] * SIZES[6]
    for block in range(program, blocks, programs):
        b, z, y, x = positions(block, SIZES[0], SIZES[1], SIZES[2], BLOCK)
        real = ((y < SIZES[1]) & (x < SIZES[2]))[None, :, None]
        at = offsets(b, z, y, x, STRIDES[0], CHANNELS)[None, :, None] + at_score
        s = load(maps[0] + at, real, score_mask, EXACT, float("-inf"))
        at = offsets(b, z, y, x, STRIDES[1], CHANNELS)[None, :, None] + at_value
        v = load(maps[1] + at, real, value_mask, EXACT, 0.0)
        d_score = tl.zeros((BLOCK[2], P, BLOCK[3]), tl.float32)
        d_value = tl.zeros((BLOCK[4], P, BLOCK[3]), tl.float32)
        for tz in range(WINDOW[0]):
            for ty in range(WINDOW[1]):
                for tx in range(WINDOW[2]):
                    tap = ((tz * WINDOW[1] + ty) * WINDOW[2] + tx) * STEP
                    iz, iy, ix, held = over(z, y, x, tz, ty, tx, SIZES, WINDOW)
                    held = held[None, :, None]
                    at = offsets(b, iz, iy, ix, STRIDES[2], CHANNELS)[None, :, None] + at_value
                    g = load(windows[0] + at, held, value_mask, EXACT, 0.0)
                    at = ((b * SIZES[3] + iz) * SIZES[4] + iy) * SIZES[5] + ix
                    at = at[None, :, None] * STEP + at_score
                    log = load(windows[1] + at, held, score_mask, EXACT, float("inf"))
                    delta = load(windows[2] + at, held, score_mask, EXACT, 0.0)
                    p = tl.exp(s + load_table(tables[0] + at_score + tap, score_mask, EXACT) - log)
                    u = p * tl.sum(g * v, 0)[None, :, :]
                    delta = p * delta
                    if tables[1] is None:
                        d_value += tl.sum(p, 0)[None, :, :] * g
                        d = u - delta
                    else:
                        w = load_table(tables[1] + at_score + tap, score_mask, EXACT)
                        d_value += tl.sum(p * w, 0)[None, :, :] * g
                        d = w * u - delta
                    d_score += d
                    if partials[0] is not None:
                        later = score_mask & (block > program)
                        row = tl.sum(d, 1)[:, None, :]
                        row += tl.load(partials[0] + mine + tap, mask=later, other=0.0)
                        tl.store(partials[0] + mine + tap, row, mask=score_mask)
                    if partials[1] is not None:
                        later = score_mask & (block > program)
                        row = tl.sum(u, 1)[:, None, :]
                        row += tl.load(partials[1] + mine + tap, mask=later, other=0.0)
                        tl.store(partials[1] + mine + tap, row, mask=score_mask)
        at = offsets(b, z, y, x, STRIDES[3], CHANNELS)[None, :, None] + at_score
        tl.store(grads[0] + at, d_score.to(grads[0].dtype.element_ty), mask=real & score_mask)
        at = offsets(b, z, y, x, STRIDES[4], CHANNELS)[None, :, None] + at_value
        tl.store(grads[1] + at, d_value.to(grads[1].dtype.element_ty), mask=real & value_mask)
        if partials[0] is not None:
            tl.debug_barrier()  # the next block's threads read what this block's threads added
