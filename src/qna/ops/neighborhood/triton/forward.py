"""The forward kernel in Triton: a softmax that goes along with the chunks of what a box of queries sees."""

import triton
import triton.language as tl

from qna.ops.neighborhood.triton.primitives import (
    LN2,
    LOG2E,
    NEVER,
    allowed_by,
    chunk_of,
    hull,
    in_group,
    in_table,
    lengths,
    members,
    middle,
    numbers,
    offsets,
    owned,
    pairs,
    product,
    product_onto,
    put_rows,
    rows,
    seen,
    true_sizes,
)


@triton.jit
def attend(
    maps, extra, tables, results, scale, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Output and log-sum-exp of a box of queries.

    Args:
        maps: q, k and v.
        extra: dense keys and values outside the map, (B, M, heads, channels), or two times None.
        tables: the bias, dense (heads, *(2 kernel - 1)) in fp32, or None; a mask of keys, dense bytes
            (B, *space), 0 where no query may look, or None; and `ranges` as in `primitives`.
        results: out; and a dense (B, *space, heads) in fp32 for the log-sum-exp, or None.
        scale: of the products.
        STRIDES: of q, k, v and out.
        SIZES, WINDOW, CHANNELS, BLOCK: as in `primitives`.
    """
    SIZES = true_sizes(SIZES)
    bias, mask, ranges = tables[0], tables[1], tables[2]
    P: tl.constexpr = BLOCK[0] * BLOCK[1] * BLOCK[2]
    batch_and_head, residues, first = owned(SIZES, WINDOW, BLOCK)
    item, head = batch_and_head
    length = lengths(residues, SIZES, WINDOW)
    if in_group(first, length, WINDOW):
        queries = members(first, BLOCK)
        real = in_group(queries, length, WINDOW)
        window = seen(ranges, False, queries, residues, real, SIZES, WINDOW)
        begin, extent = hull(ranges, False, first, residues, length, SIZES, WINDOW, BLOCK)
        at = offsets(queries, residues, STRIDES[0], batch_and_head, CHANNELS, WINDOW)
        q = rows(maps[0], at, real, CHANNELS[0], BLOCK[4])
        top = tl.full((P,), NEVER, tl.float32)
        total = tl.full((P,), 0.0, tl.float32)
        sums = tl.full((P, BLOCK[5]), 0.0, tl.float32)
        for start in range(0, extent[0] * extent[1] * extent[2], BLOCK[3]):
            keys = chunk_of(start, begin, extent, WINDOW, BLOCK[3])
            here = in_group(keys, length, WINDOW)
            found = pairs(window, keys, WINDOW)
            if mask is not None:
                allowed = allowed_by(mask, keys, residues, item, here, SIZES, WINDOW)
                here &= allowed
                found &= allowed[None, :]
            spot = offsets(keys, residues, STRIDES[1], batch_and_head, CHANNELS, WINDOW)
            k = rows(maps[1], spot, here, CHANNELS[0], BLOCK[4])
            s = product(q, tl.trans(k)) * (scale * LOG2E)
            if bias is not None:
                entry = in_table(keys, WINDOW)[None, :] - in_table(queries, WINDOW)[:, None]
                s += tl.load(middle(bias, head, WINDOW) + entry, mask=found, other=0.0) * LOG2E
            spot = offsets(keys, residues, STRIDES[2], batch_and_head, CHANNELS, WINDOW)
            v = rows(maps[2], spot, here, CHANNELS[1], BLOCK[5])
            top, total, sums = step(top, total, sums, tl.where(found, s, NEVER), v)
        if extra[0] is not None:
            for start in range(0, SIZES[4], BLOCK[3]):
                m = start + tl.arange(0, BLOCK[3])
                spot = (item * SIZES[4] + m) * SIZES[3] + head
                k = rows(extra[0], spot * CHANNELS[0], m < SIZES[4], CHANNELS[0], BLOCK[4])
                v = rows(extra[1], spot * CHANNELS[1], m < SIZES[4], CHANNELS[1], BLOCK[5])
                s = product(q, tl.trans(k)) * (scale * LOG2E)
                top, total, sums = step(top, total, sums, tl.where(m[None, :] < SIZES[4], s, NEVER), v)
        nothing = total == 0
        total = tl.where(nothing, 1.0, total)
        at = offsets(queries, residues, STRIDES[3], batch_and_head, CHANNELS, WINDOW)
        put_rows(results[0], at, sums / total[:, None], real, CHANNELS[1], BLOCK[5])
        if results[1] is not None:
            lse = tl.where(nothing, NEVER, (top + tl.log2(total)) * LN2)
            at = numbers(queries, residues, item, SIZES, WINDOW) * SIZES[3] + head
            tl.store(results[1] + at, lse, mask=real)


@triton.jit
def step(top, total, sums, s, v):
    """The largest score to base 2, and sums of shares and values relative to it, with a chunk more."""
    higher = tl.maximum(top, tl.max(s, 1))
    # where nothing is attended so far, any finite number will do
    base = tl.where(higher == NEVER, 0.0, higher)
    share = tl.exp2(s - base[:, None])
    less = tl.exp2(top - base)
    sums = product_onto(share, v, sums * less[:, None])
    return higher, total * less + tl.sum(share, 1), sums
