"""The forward kernel in Triton: a program owns a block of windows, part of the heads, and all of L and d."""

import triton
import triton.language as tl

from qna.ops.learned_query.triton_tile import (
    channels,
    exp,
    halve,
    load,
    load_table,
    offsets,
    over_channels,
    positions,
    window_offsets,
)


@triton.jit
def attend(
    scores, value, bias, weight, out, lse, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Two passes over the taps: the statistics of the softmax, then the weighted values.

    The second pass finds the scores in the cache. `STRIDES` are those of scores, value and out.
    """
    SIZES = halve(SIZES)
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    P: tl.constexpr = BLOCK[0] * BLOCK[1]
    parts = tl.cdiv(CHANNELS[1], BLOCK[3] * BLOCK[4])
    pid = tl.program_id(0)
    b, z, y, x = positions(pid // parts, SIZES[3], SIZES[4], SIZES[5], BLOCK)
    at_score, score_mask, at_value, value_mask = channels(pid % parts, CHANNELS, BLOCK)

    # finite, so that a position masked by -inf adds e^-inf = 0, and never -inf - -inf
    top = tl.full((BLOCK[2], P, BLOCK[3], BLOCK[4]), -3.4028234e38, tl.float32)
    total = tl.full((BLOCK[2], P, BLOCK[3], BLOCK[4]), 0.0, tl.float32)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = ((tz * WINDOW[1] + ty) * WINDOW[2] + tx) * STEP + at_score
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)
                at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS) + at_score
                s = load(scores + at, inside, score_mask, EXACT, float("-inf"))
                s += load_table(bias + tap, score_mask, EXACT)
                # one exponential a tap: of the gap, which scales either the sum so far or the new term
                gap = exp(-tl.abs(s - top))
                total = tl.where(s > top, total * gap + 1.0, total + gap)
                top = tl.maximum(top, s)
    some = total > 0  # else the window holds no position
    total = tl.where(some, total, 1.0)
    share = 1.0 / total

    result = tl.full((BLOCK[5], P, BLOCK[3], BLOCK[4]), 0.0, tl.float32)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = ((tz * WINDOW[1] + ty) * WINDOW[2] + tx) * STEP + at_score
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)
                at_s = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS) + at_score
                at_v = offsets(b, jz, jy, jx, STRIDES[1], CHANNELS) + at_value
                v = load(value + at_v, inside, value_mask, EXACT, 0.0)
                s = load(scores + at_s, inside, score_mask, EXACT, float("-inf"))
                s += load_table(bias + tap, score_mask, EXACT)
                p = exp(s - top) * share
                if weight is not None:
                    p *= load_table(weight + tap, score_mask, EXACT)
                result += tl.sum(p, 0)[None, :, :, :] * v

    real = over_channels((y < SIZES[4]) & (x < SIZES[5]))
    at_v = offsets(b, z, y, x, STRIDES[2], CHANNELS) + at_value
    tl.store(out + at_v, result.to(out.dtype.element_ty), mask=real & value_mask)
    at_s = window_offsets(b, z, y, x, SIZES, CHANNELS) + at_score
    tl.store(lse + at_s, tl.where(some, top + tl.log(total), float("inf")), mask=real & score_mask)


@triton.jit
def under(z, y, x, tz, ty, tx, SIZES, WINDOW: tl.constexpr):
    """The map positions under one tap of the windows z, y, x, and which (1, P, 1, 1) are in the map."""
    jz = z * WINDOW[3] - WINDOW[9] + tz * WINDOW[6]
    jy = y * WINDOW[4] - WINDOW[10] + ty * WINDOW[7]
    jx = x * WINDOW[5] - WINDOW[11] + tx * WINDOW[8]
    inside = (jy >= 0) & (jy < SIZES[1]) & (jx >= 0) & (jx < SIZES[2]) & (jz >= 0) & (jz < SIZES[0])
    return jz, jy, jx, over_channels(inside)
