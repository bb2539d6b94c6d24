"""The forward kernel's way for scores of any size: each window relative to its own maximum."""

import triton
import triton.language as tl

from qna.ops.learned_query.triton.primitives import (
    exp,
    load,
    load_table,
    offsets,
    over_channels,
    share_of_windows,
    true_sizes,
    under,
    window_offsets,
)


@triton.jit
def attend_far(
    maps, tables, results, far, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`attend_exactly` for all windows, if the flag `far` is set; all else is as in `attend`."""
    if tl.load(far) == 0:
        return
    SIZES = true_sizes(SIZES)
    place, layout = share_of_windows(SIZES, CHANNELS, BLOCK)
    attend_exactly(maps, tables, results, place, layout, STRIDES, SIZES, WINDOW, CHANNELS, BLOCK)  # pyright: ignore


@triton.jit
def attend_exactly(
    maps, tables, results, place, layout, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """One window per thread, by its own maximum: any finite scores and bias, or no position at all.

    `place` are batch item, plane, rows and columns of the windows; `layout` is what `channels` returns; the
    rest is as in `attend`.
    """
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    P: tl.constexpr = BLOCK[0] * BLOCK[1]
    b, z, y, x = place
    at_score, score_mask, at_value, value_mask = layout

    # finite, so that a position masked by -inf adds e^-inf = 0, and never -inf - -inf
    top = tl.full((BLOCK[2], P, BLOCK[3], BLOCK[4]), -3.4028234e38, tl.float32)
    total = tl.full((BLOCK[2], P, BLOCK[3], BLOCK[4]), 0.0, tl.float32)
    for tz in range(WINDOW[0]):
        for ty in range(WINDOW[1]):
            for tx in range(WINDOW[2]):
                tap = ((tz * WINDOW[1] + ty) * WINDOW[2] + tx) * STEP + at_score
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)  # pyright: ignore
                at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS) + at_score
                s = logit(maps[0] + at, tables[0] + tap, inside, score_mask, EXACT)
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
                jz, jy, jx, inside = under(z, y, x, tz, ty, tx, SIZES, WINDOW)  # pyright: ignore
                at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS) + at_score
                p = exp(logit(maps[0] + at, tables[0] + tap, inside, score_mask, EXACT) - top) * share
                at = offsets(b, jz, jy, jx, STRIDES[1], CHANNELS) + at_value
                v = load(maps[1] + at, inside, value_mask, EXACT, 0.0)
                if tables[1] is not None:
                    p *= load_table(tables[1] + tap, score_mask, EXACT)
                result += tl.sum(p, 0)[None, :, :, :] * v

    real = over_channels((y < SIZES[4]) & (x < SIZES[5]))
    at_v = offsets(b, z, y, x, STRIDES[2], CHANNELS) + at_value
    tl.store(results[0] + at_v, result.to(results[0].dtype.element_ty), mask=real & value_mask)
    if results[1] is not None:
        at_s = window_offsets(b, z, y, x, SIZES, CHANNELS) + at_score
        tl.store(results[1] + at_s, tl.where(some, top + tl.log(total), float("inf")), mask=real & score_mask)


@triton.jit
def logit(score, bias, inside, mask, EXACT: tl.constexpr):
    """Score and bias at these addresses, -inf outside the map."""
    return load(score, inside, mask, EXACT, float("-inf")) + load_table(bias, mask, EXACT)
