"""The forward kernel in Triton: one program per block of windows and heads, with all queries and channels."""

import triton
import triton.language as tl

from qna.ops.learned_query.triton_tile import channels, load, load_table, offsets, positions


@triton.jit
def score(scores, bias, at, tap, inside, mask, EXACT: tl.constexpr, STEP: tl.constexpr):
    """Scores plus bias (L, P, h) under one tap, -inf outside the map."""
    s = load(scores + at[None, :, None], inside[None, :, None], mask, EXACT, float("-inf"))
    return s + load_table(bias + tap * STEP, mask, EXACT)


@triton.jit
def under(z, y, x, tz, ty, tx, SIZES, WINDOW):
    """The map positions under one tap of the windows z, y, x, and which are in the map."""
    jz = z * WINDOW[3] - WINDOW[9] + tz * WINDOW[6]
    jy = y * WINDOW[4] - WINDOW[10] + ty * WINDOW[7]
    jx = x * WINDOW[5] - WINDOW[11] + tx * WINDOW[8]
    inside = (jy >= 0) & (jy < SIZES[1]) & (jx >= 0) & (jx < SIZES[2]) & (jz >= 0) & (jz < SIZES[0])
    return jz, jy, jx, inside


@triton.jit
def attend(
    scores, value, bias, weight, out, lse, STRIDES, SIZES, WINDOW,
    CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Three passes over the taps: the maximum, the sum of exponentials, the weighted values.

    The scores are read from cache after the first pass; nothing but the output and the log-sum-exp is written.
    """
    L: tl.constexpr = CHANNELS[0]
    H: tl.constexpr = CHANNELS[1]
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = L * H
    P: tl.constexpr = BLOCK[0] * BLOCK[1]
    heads = tl.cdiv(H, BLOCK[3])
    pid = tl.program_id(0)
    b, z, y, x = positions(pid // heads, SIZES[3], SIZES[4], SIZES[5], BLOCK)
    at_score, score_mask, at_value, value_mask = channels(pid % heads * BLOCK[3], CHANNELS, BLOCK)
    scores += at_score
    bias += at_score

    top = tl.full((BLOCK[2], P, BLOCK[3]), float("-inf"), tl.float32)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = (tz * WINDOW[1] + ty) * WINDOW[2] + tx
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)
                at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS)
                top = tl.maximum(top, score(scores, bias, at, tap, inside, score_mask, EXACT, STEP))
    top = tl.where(top == float("-inf"), 0.0, top)  # a window without any position

    total = tl.zeros((BLOCK[2], P, BLOCK[3]), tl.float32)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = (tz * WINDOW[1] + ty) * WINDOW[2] + tx
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)
                at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS)
                total += tl.exp(score(scores, bias, at, tap, inside, score_mask, EXACT, STEP) - top)
    some = total > 0
    share = 1.0 / tl.where(some, total, 1.0)

    result = tl.zeros((BLOCK[4], P, BLOCK[3]), tl.float32)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = (tz * WINDOW[1] + ty) * WINDOW[2] + tx
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)
                at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS)
                p = tl.exp(score(scores, bias, at, tap, inside, score_mask, EXACT, STEP) - top) * share
                if weight is not None:
                    p *= load_table(weight + at_score + tap * STEP, score_mask, EXACT)
                at = offsets(b, jz, jy, jx, STRIDES[1], CHANNELS)
                v = load(
                    value + at[None, :, None] + at_value, inside[None, :, None], value_mask, EXACT, 0.0
                )
                result += tl.sum(p, 0)[None, :, :] * v

    real = ((y < SIZES[4]) & (x < SIZES[5]))[None, :, None]
    at = offsets(b, z, y, x, STRIDES[2], CHANNELS)[None, :, None]
    tl.store(out + at + at_value, result.to(out.dtype.element_ty), mask=real & value_mask)
    window = ((b * SIZES[3] + z) * SIZES[4] + y) * SIZES[5] + x
    log = tl.where(some, top + tl.log(tl.where(some, total, 1.0)), float("inf"))
    tl.store(lse + window[None, :, None] * STEP + at_score, log, mask=real & score_mask)
