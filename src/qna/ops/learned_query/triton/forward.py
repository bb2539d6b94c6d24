"""The forward kernels in Triton.

`tabulate` makes the exponentials of the bias. In `attend` a program owns a block of windows, part of the
heads, and all of L and d; a thread owns a few neighbouring windows of a row, which share what it reads.
"""

import triton
import triton.language as tl

from qna.ops.learned_query.triton.exact import attend_exactly
from qna.ops.learned_query.triton.primitives import (
    column,
    exp,
    inverse,
    load,
    load_table,
    log,
    offsets,
    over_channels,
    reach,
    share_of_windows,
    true_sizes,
    window_offsets,
    within,
)

# Terms of a denominator are lost below fp32's 2^-126. Denominators of at least 2^-60 miss less than 2^-66 of
# themselves, if no factor of the bias is lost: so these too are at least 2^-60. An exponential beyond fp32
# makes its denominator infinite.
LEAST = tl.constexpr(2.0**-60)
MOST = tl.constexpr(2.0**60)


@triton.jit
def tabulate(
    tables, factors,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, PIECE: tl.constexpr,
):  # fmt: skip
    """The largest bias of each query and head, the factors e^(bias - that), then those times weight, if any.

    The taps of a row are filled up with zeros to whole pieces. Where the factors of a query and head span too
    much for fp32 they are NaN, and so is every denominator made of them. `BLOCK` is a tile's taps and pairs
    of query and head.
    """
    TAPS: tl.constexpr = BLOCK[0]
    PAIRS: tl.constexpr = BLOCK[1]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    ROW: tl.constexpr = ((WINDOW[2] + PIECE - 1) // PIECE) * PIECE
    ALL: tl.constexpr = WINDOW[0] * WINDOW[1] * ROW
    pair = tl.program_id(0) * PAIRS + tl.arange(0, PAIRS)[None, :]
    top = tl.full((1, PAIRS), -3.4028234e38, tl.float32)
    least = tl.full((1, PAIRS), float("inf"), tl.float32)
    for start in range(0, ALL, TAPS):
        tap = start + tl.arange(0, TAPS)[:, None]
        real = (tap < ALL) & (tap % ROW < WINDOW[2]) & (pair < STEP)
        at = (tap // ROW * WINDOW[2] + tap % ROW) * STEP + pair
        b = tl.load(tables[0] + at, mask=real, other=float("-inf"))
        top = tl.maximum(top, tl.max(b, 0)[None, :])
        # a tap that is masked by -inf adds nothing, and loses nothing
        least = tl.minimum(least, tl.min(tl.where(b > float("-inf"), b, float("inf")), 0)[None, :])
    tl.store(factors + pair, top, mask=pair < STEP)
    for start in range(0, ALL, TAPS):
        tap = start + tl.arange(0, TAPS)[:, None]
        real = (tap < ALL) & (tap % ROW < WINDOW[2]) & (pair < STEP)
        at = (tap // ROW * WINDOW[2] + tap % ROW) * STEP + pair
        b = tl.load(tables[0] + at, mask=real, other=float("-inf"))
        factor = tl.where(exp(least - top) >= LEAST, exp(b - top), float("nan"))
        to = factors + (tap + 1) * STEP + pair
        tl.store(to, factor, mask=(tap < ALL) & (pair < STEP))
        if tables[1] is not None:
            factor *= tl.load(tables[1] + at, mask=real, other=0.0)
            tl.store(to + ALL * STEP, factor, mask=(tap < ALL) & (pair < STEP))


@triton.jit
def attend(
    maps, tables, factors, results, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Two passes over the positions under a thread's windows: denominators, then weighted values.

    Exponentials are relative to one score that stands for all these windows, so that each is taken once and
    serves them all. Should that score be too far from those of any window in the program, or the bias span
    too much, the program takes each window by its own maximum instead.

    Args:
        maps: scores and value.
        tables: bias and weight, fp32.
        factors: of bias and weight, as `tabulate` makes them.
        results: out and lse, to be written; lse may be None.
        STRIDES: of scores, value and out.
        SIZES, WINDOW, CHANNELS, BLOCK: as in `primitives`.
    """
    SIZES = true_sizes(SIZES)
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    W: tl.constexpr = BLOCK[6]
    place, layout = share_of_windows(SIZES, CHANNELS, BLOCK)
    b, z, y, x = place
    at_score, score_mask, at_value, value_mask = layout

    # the middle of the first window, or its beginning where the map is not padded
    jz, jy, jx = z * WINDOW[3], y * WINDOW[4], x * WINDOW[5]
    inside = over_channels(within(jy, SIZES[1]) & within(jx, SIZES[2]) & within(jz, SIZES[0]))
    at = offsets(b, jz, jy, jx, STRIDES[0], CHANNELS) + at_score
    stand = load(maps[0] + at, inside, score_mask, EXACT, 0.0)
    stand = tl.where(stand > float("-inf"), stand, 0.0)
    totals = denominators(maps[0], factors, stand, place, layout, STRIDES, SIZES, WINDOW, CHANNELS, BLOCK)
    shares, extent = invert(totals, place, score_mask, SIZES, EXACT, BLOCK)
    if extent <= MOST:
        top = load_table(factors + at_score, score_mask, EXACT)
        if tables[1] is not None:
            factors += WINDOW[0] * WINDOW[1] * ((WINDOW[2] + BLOCK[7] - 1) // BLOCK[7] * BLOCK[7]) * STEP
        sums = weigh(maps, factors, stand, shares, place, layout, STRIDES, SIZES, WINDOW, CHANNELS, BLOCK)
        at_o = offsets(b, z, y, x, STRIDES[2], CHANNELS) + at_value
        at_w = window_offsets(b, z, y, x, SIZES, CHANNELS) + at_score
        for i in tl.static_range(W):
            real = over_channels((y < SIZES[4]) & (x + i < SIZES[5]))
            to = results[0] + (at_o + i * column(STRIDES[2], CHANNELS))
            tl.store(to, sums[i].to(results[0].dtype.element_ty), mask=real & value_mask)
            if results[1] is not None:
                to = results[1] + (at_w + i * STEP)
                tl.store(to, stand + top + log(totals[i]), mask=real & score_mask)
    else:
        for k in range(W):
            window = (b, z, y, x + k)
            attend_exactly(maps, tables, results, window, layout, STRIDES, SIZES, WINDOW, CHANNELS, BLOCK)


@triton.jit
def denominators(
    scores, factors, stand, place, layout, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of the exponentials, relative to `stand` and the largest bias, of each of W windows."""
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    STRIDE: tl.constexpr = WINDOW[5]
    W: tl.constexpr = BLOCK[6]
    PIECE: tl.constexpr = BLOCK[7]
    at_score, mask, _, _ = layout
    totals = (tl.full((BLOCK[2], BLOCK[0] * BLOCK[1], BLOCK[3], BLOCK[4]), 0.0, tl.float32),) * W
    for line in range(WINDOW[0] * WINDOW[1] * ((WINDOW[2] + PIECE - 1) // PIECE)):
        tap = factors + ((line * PIECE + 1) * STEP + at_score)
        jz, jy, jx, reached = first(place, line, SIZES, WINDOW, PIECE)  # pyright: ignore
        at = scores + (offsets(place[0], jz, jy, jx, STRIDES[0], CHANNELS) + at_score)
        for c in tl.static_range(STRIDE * (W - 1) + PIECE):
            inside = over_channels(reached & within(jx + c * WINDOW[8], SIZES[2]))
            s = load(at + c * WINDOW[8] * column(STRIDES[0], CHANNELS), inside, mask, EXACT, float("-inf"))
            e = exp(s - stand)
            for i in tl.static_range(W):
                if c - i * STRIDE >= 0 and c - i * STRIDE < PIECE:
                    factor = load_table(tap + (c - i * STRIDE) * STEP, mask, EXACT)
                    totals = put(totals, i, totals[i] + e * factor)
    return totals


@triton.jit
def invert(totals, place, mask, SIZES, EXACT: tl.constexpr, BLOCK: tl.constexpr):
    """Inverses of the denominators, and the sum of both over the program: it tells if any is out of range."""
    W: tl.constexpr = BLOCK[6]
    shares = totals
    extent = tl.full((BLOCK[0] * BLOCK[1], BLOCK[3]), 0.0, tl.float32)
    for i in tl.static_range(W):  # pyright: ignore
        share = inverse(totals[i])
        both = totals[i] + share
        if not EXACT:
            share = tl.where(mask, share, 0.0)
            both = tl.where(mask, both, 0.0)
        shares = put(shares, i, share)
        both = tl.sum(tl.sum(both, 3), 0)
        real = (place[2] < SIZES[4]) & (place[3] + i < SIZES[5])
        extent += tl.where(real[:, None], both, 0.0)
    return shares, tl.sum(tl.sum(extent, 1), 0)


@triton.jit
def weigh(
    maps, factors, stand, shares, place, layout, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Sums of the values of each of W windows, weighted by their shares of the exponentials."""
    EXACT: tl.constexpr = CHANNELS[4]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    STRIDE: tl.constexpr = WINDOW[5]
    W: tl.constexpr = BLOCK[6]
    PIECE: tl.constexpr = BLOCK[7]
    at_score, score_mask, at_value, value_mask = layout
    sums = (tl.full((BLOCK[5], BLOCK[0] * BLOCK[1], BLOCK[3], BLOCK[4]), 0.0, tl.float32),) * W
    for line in range(WINDOW[0] * WINDOW[1] * ((WINDOW[2] + PIECE - 1) // PIECE)):
        tap = factors + ((line * PIECE + 1) * STEP + at_score)
        jz, jy, jx, reached = first(place, line, SIZES, WINDOW, PIECE)  # pyright: ignore
        at_s = maps[0] + (offsets(place[0], jz, jy, jx, STRIDES[0], CHANNELS) + at_score)
        at_v = maps[1] + (offsets(place[0], jz, jy, jx, STRIDES[1], CHANNELS) + at_value)
        for c in tl.static_range(STRIDE * (W - 1) + PIECE):
            inside = over_channels(reached & within(jx + c * WINDOW[8], SIZES[2]))
            v = load(at_v + c * WINDOW[8] * column(STRIDES[1], CHANNELS), inside, value_mask, EXACT, 0.0)
            s = at_s + c * WINDOW[8] * column(STRIDES[0], CHANNELS)
            e = exp(load(s, inside, score_mask, EXACT, float("-inf")) - stand)
            for i in tl.static_range(W):
                if c - i * STRIDE >= 0 and c - i * STRIDE < PIECE:
                    factor = load_table(tap + (c - i * STRIDE) * STEP, score_mask, EXACT)
                    share = tl.sum(e * factor * shares[i], 0)[None, :, :, :]
                    sums = put(sums, i, sums[i] + share * v)
    return sums


@triton.jit
def first(place, line, SIZES, WINDOW: tl.constexpr, PIECE: tl.constexpr):
    """Map positions under the first tap of a piece of a row, and which (P,) of these rows are in the map."""
    PIECES: tl.constexpr = (WINDOW[2] + PIECE - 1) // PIECE
    tz = line // (WINDOW[1] * PIECES)
    ty = line // PIECES % WINDOW[1]
    _, z, y, x = place
    jz, jy, jx = reach(z, y, x, tz, ty, line % PIECES * PIECE, WINDOW)  # pyright: ignore
    return jz, jy, jx, within(jy, SIZES[1]) & within(jz, SIZES[0])


@triton.jit
def put(items, index: tl.constexpr, item):
    """The tuple `items` with `item` in place of one."""
    return items[:index] + (item,) + items[index + 1 :]  # noqa: RUF005 (triton has no starred items)
