"""The backward kernels in Triton: no atomics, so that two runs agree bit for bit.

With `p = e^(s - lse)` of a query `i` and a key `j` that it attends, and `u = grad[i] . v[j]`::

    inner[i] = sum_j p u - grad_lse[i]       `query_gradients`: a program owns queries, and walks over
    d q[i] = scale sum_j p (u - inner[i]) k[j]    their keys twice, so that no output need be kept
    d v[j] = sum_i p grad[i]                 `key_gradients`: a program owns keys, and walks over the
    d k[j] = scale sum_i p (u - inner[i]) q[i]    queries that see them
    d bias[o] = sum_i p (u - inner[i])       `bias_gradients`: of the keys at offset o, a program per entry
    of extra keys                            `extra_gradients`: as of others, over a run of all queries
"""

import triton
import triton.language as tl

from qna.ops.neighborhood.triton.primitives import (
    LOG2E,
    NEVER,
    allowed_by,
    chunk_of,
    hull,
    in_group,
    in_table,
    lengths,
    log_of,
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
def query_gradients(  # noqa: PLR0912, PLR0915 (a kernel calls nothing that is not compiled with it)
    maps, extra, tables, logs, results, scale, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr, SWEEPS: tl.constexpr,
):  # fmt: skip
    """Of a box of queries the inner sum of the softmax's derivative, and the gradient.

    Args:
        maps: q, k, v and grad.
        extra, tables: as in `forward.attend`.
        logs: the log-sum-exp and its gradient, dense (B, *space, heads) in fp32.
        results: the gradient of q; and the inner sums, dense as `logs`.
        scale: of the products.
        STRIDES: of q, k, v, grad and the gradient of q.
        SIZES, WINDOW, CHANNELS, BLOCK: as in `primitives`.
        SWEEPS: 1 for that which forms the inner sums, 2 for that which forms the gradient, 3 for both. Two
            launches need fewer registers than one of both, whose loops share the operands that they read.
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
        at = offsets(queries, residues, STRIDES[3], batch_and_head, CHANNELS, WINDOW)
        g = rows(maps[3], at, real, CHANNELS[1], BLOCK[5])
        at_log = numbers(queries, residues, item, SIZES, WINDOW) * SIZES[3] + head
        log = log_of(logs[0], at_log, real)
        FIRST: tl.constexpr = 1 - SWEEPS % 2
        END: tl.constexpr = 1 + SWEEPS // 2
        if FIRST == 0:
            inner = tl.full((P,), 0.0, tl.float32)
        else:
            inner = tl.load(results[1] + at_log, mask=real, other=0.0)
        sums = tl.full((P, BLOCK[4]), 0.0, tl.float32)
        for sweep in tl.static_range(FIRST, END):
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
                p = tl.exp2(tl.where(found, s, NEVER) - log[:, None])
                spot = offsets(keys, residues, STRIDES[2], batch_and_head, CHANNELS, WINDOW)
                v = rows(maps[2], spot, here, CHANNELS[1], BLOCK[5])
                u = product(g, tl.trans(v))
                if sweep == 0:
                    inner += tl.sum(p * u, 1)
                else:
                    sums = product_onto(p * (u - inner[:, None]), k, sums)
            if extra[0] is not None:
                for start in range(0, SIZES[4], BLOCK[3]):
                    m = start + tl.arange(0, BLOCK[3])
                    spot = (item * SIZES[4] + m) * SIZES[3] + head
                    k = rows(extra[0], spot * CHANNELS[0], m < SIZES[4], CHANNELS[0], BLOCK[4])
                    v = rows(extra[1], spot * CHANNELS[1], m < SIZES[4], CHANNELS[1], BLOCK[5])
                    s = product(q, tl.trans(k)) * (scale * LOG2E)
                    p = tl.exp2(tl.where(m[None, :] < SIZES[4], s, NEVER) - log[:, None])
                    u = product(g, tl.trans(v))
                    if sweep == 0:
                        inner += tl.sum(p * u, 1)
                    else:
                        sums = product_onto(p * (u - inner[:, None]), k, sums)
            if sweep == 0:
                inner -= tl.load(logs[1] + at_log, mask=real, other=0.0)
        if FIRST == 0:
            tl.store(results[1] + at_log, inner, mask=real)
        if END == 2:
            at = offsets(queries, residues, STRIDES[4], batch_and_head, CHANNELS, WINDOW)
            put_rows(results[0], at, sums * scale, real, CHANNELS[0], BLOCK[4])


@triton.jit
def key_gradients(
    maps, tables, logs, results, scale, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of a box of keys and values.

    Args:
        maps, bias, mask, ranges: as above.
        logs: the log-sum-exp and the inner sums.
        results: the gradients of k and v.
        scale: of the products.
        STRIDES: of q, k, v, grad and the gradients of k and v.
        SIZES, WINDOW, CHANNELS, BLOCK: as in `primitives`.
    """
    SIZES = true_sizes(SIZES)
    bias, mask, ranges = tables[0], tables[1], tables[2]
    P: tl.constexpr = BLOCK[0] * BLOCK[1] * BLOCK[2]
    batch_and_head, residues, first = owned(SIZES, WINDOW, BLOCK)
    item, head = batch_and_head
    length = lengths(residues, SIZES, WINDOW)
    if in_group(first, length, WINDOW):
        keys = members(first, BLOCK)
        real = in_group(keys, length, WINDOW)
        here = real
        if mask is not None:
            here &= allowed_by(mask, keys, residues, item, real, SIZES, WINDOW)
        window = seen(ranges, True, keys, residues, here, SIZES, WINDOW)
        begin, extent = hull(ranges, True, first, residues, length, SIZES, WINDOW, BLOCK)
        at = offsets(keys, residues, STRIDES[1], batch_and_head, CHANNELS, WINDOW)
        k = rows(maps[1], at, here, CHANNELS[0], BLOCK[4])
        at = offsets(keys, residues, STRIDES[2], batch_and_head, CHANNELS, WINDOW)
        v = rows(maps[2], at, here, CHANNELS[1], BLOCK[5])
        d_k = tl.full((P, BLOCK[4]), 0.0, tl.float32)
        d_v = tl.full((P, BLOCK[5]), 0.0, tl.float32)
        for start in range(0, extent[0] * extent[1] * extent[2], BLOCK[3]):
            queries = chunk_of(start, begin, extent, WINDOW, BLOCK[3])
            asked = in_group(queries, length, WINDOW)
            found = pairs(window, queries, WINDOW)
            spot = offsets(queries, residues, STRIDES[0], batch_and_head, CHANNELS, WINDOW)
            q = rows(maps[0], spot, asked, CHANNELS[0], BLOCK[4])
            spot = numbers(queries, residues, item, SIZES, WINDOW) * SIZES[3] + head
            log = log_of(logs[0], spot, asked)
            inner = tl.load(logs[1] + spot, mask=asked, other=0.0)
            s = product(k, tl.trans(q)) * (scale * LOG2E)
            if bias is not None:
                entry = in_table(keys, WINDOW)[:, None] - in_table(queries, WINDOW)[None, :]
                s += tl.load(middle(bias, head, WINDOW) + entry, mask=found, other=0.0) * LOG2E
            p = tl.exp2(tl.where(found, s, NEVER) - log[None, :])
            spot = offsets(queries, residues, STRIDES[3], batch_and_head, CHANNELS, WINDOW)
            g = rows(maps[3], spot, asked, CHANNELS[1], BLOCK[5])
            d_v = product_onto(p, g, d_v)
            u = product(v, tl.trans(g))
            d_k = product_onto(p * (u - inner[None, :]), q, d_k)
        at = offsets(keys, residues, STRIDES[4], batch_and_head, CHANNELS, WINDOW)
        put_rows(results[0], at, d_k * scale, real, CHANNELS[0], BLOCK[4])
        at = offsets(keys, residues, STRIDES[5], batch_and_head, CHANNELS, WINDOW)
        put_rows(results[1], at, d_v, real, CHANNELS[1], BLOCK[5])


@triton.jit
def along(number, size, axis: tl.constexpr, WINDOW: tl.constexpr):
    """What is left of the numbers of positions before an axis, and place and residue along it."""
    rest = number // size
    at = number - rest * size
    return rest, at // WINDOW[4 + axis], at % WINDOW[4 + axis]


@triton.jit
def positions(number, SIZES, WINDOW: tl.constexpr):
    """Places and residues of positions by their numbers in a dense (*space)."""
    rest, x, rx = along(number, SIZES[2], 2, WINDOW)  # pyright: ignore
    y, ry, z, rz = rest, 0, rest, 0
    if WINDOW[0] > 1:
        rest, y, ry = along(rest, SIZES[1], 1, WINDOW)
    if WINDOW[0] > 2:
        rest, z, rz = along(rest, SIZES[0], 0, WINDOW)
    return (z, y, x), (rz, ry, rx)


@triton.jit
def run_of(SIZES, batch, runs, BLOCK: tl.constexpr):
    """Owner and run of a program, and the blocks of queries in this run, from which to which."""
    blocks = tl.cdiv(SIZES[0] * SIZES[1] * SIZES[2], BLOCK) * batch
    each = tl.cdiv(blocks, runs)
    owner = tl.program_id(0) // runs
    run = tl.program_id(0) - owner * runs
    return owner, run, run * each, tl.minimum(run * each + each, blocks)


@triton.jit
def bias_gradients(
    maps, tables, logs, partials, scale, batch, runs, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradient of one entry of one head, over a run of the queries of all items.

    Args:
        maps, bias, mask, ranges: as above.
        logs: the log-sum-exp and the inner sums.
        partials: (runs, heads, entries) in fp32, to be written.
        scale: of the products.
        batch: items, as 2n + 1.
        runs: their number, as 2n + 1.
        STRIDES: of q, k, v and grad.
        SIZES, WINDOW, CHANNELS: as in `primitives`.
        BLOCK: queries at a time, d and e.
    """
    SIZES = true_sizes(SIZES)
    bias, mask, ranges = tables[0], tables[1], tables[2]
    TALL: tl.constexpr = 2 * WINDOW[2] - 1
    WIDE: tl.constexpr = 2 * WINDOW[3] - 1
    ENTRIES: tl.constexpr = (2 * WINDOW[1] - 1) * TALL * WIDE
    N = SIZES[0] * SIZES[1] * SIZES[2]
    runs = runs >> 1
    blocks = tl.cdiv(N, BLOCK[0])
    owner, run, begin, end = run_of(SIZES, batch >> 1, runs, BLOCK[0])  # pyright: ignore
    head = owner // ENTRIES
    entry = owner - head * ENTRIES
    dz = entry // (TALL * WIDE) - (WINDOW[1] - 1)
    dy = entry // WIDE % TALL - (WINDOW[2] - 1)
    dx = entry % WIDE - (WINDOW[3] - 1)
    of_bias = tl.load(bias + owner) * LOG2E
    sums = tl.full((BLOCK[0],), 0.0, tl.float32)
    for block in range(begin, end):
        item = (block // blocks).to(tl.int64)
        number = block % blocks * BLOCK[0] + tl.arange(0, BLOCK[0])
        asked = number < N
        queries, residues = positions(number, SIZES, WINDOW)
        length = lengths(residues, SIZES, WINDOW)
        keys = (queries[0] + dz, queries[1] + dy, queries[2] + dx)
        first, count = seen(ranges, False, queries, residues, asked, SIZES, WINDOW)
        found = within_window(keys, first, count, WINDOW)
        here = in_group(keys, length, WINDOW)
        if mask is not None:
            allowed = allowed_by(mask, keys, residues, item, here, SIZES, WINDOW)
            here &= allowed
            found &= allowed
        # most offsets are far from the window of any query but those near a border
        if tl.max(found.to(tl.int32), 0) > 0:
            here &= found
            q = one(maps[0], queries, residues, STRIDES[0], (item, head), found, CHANNELS, WINDOW, BLOCK, 0)
            k = one(maps[1], keys, residues, STRIDES[1], (item, head), here, CHANNELS, WINDOW, BLOCK, 0)
            s = tl.sum(q * k, 1) * (scale * LOG2E) + of_bias
            v = one(maps[2], keys, residues, STRIDES[2], (item, head), here, CHANNELS, WINDOW, BLOCK, 1)
            g = one(maps[3], queries, residues, STRIDES[3], (item, head), found, CHANNELS, WINDOW, BLOCK, 1)
            spot = (item * N + number) * SIZES[3] + head
            p = tl.exp2(tl.where(found, s, NEVER) - log_of(logs[0], spot, asked))
            sums += p * (tl.sum(g * v, 1) - tl.load(logs[1] + spot, mask=asked, other=0.0))
    to = partials + run.to(tl.int64) * (SIZES[3] * ENTRIES) + owner
    tl.store(to, tl.sum(sums, 0))


@triton.jit
def within_window(places, first, count, WINDOW: tl.constexpr):
    """Which of as many places as windows are in these."""
    found = (places[2] >= first[2]) & (places[2] < first[2] + count[2])
    if WINDOW[0] > 1:
        found &= (places[1] >= first[1]) & (places[1] < first[1] + count[1])
    if WINDOW[0] > 2:
        found &= (places[0] >= first[0]) & (places[0] < first[0] + count[0])
    return found


@triton.jit
def one(
    map, places, residues, strides, batch_and_head, real,
    CHANNELS: tl.constexpr, WINDOW: tl.constexpr, BLOCK: tl.constexpr, VALUES: tl.constexpr,
):  # fmt: skip
    """The channels of a place for each query in fp32, 0 where not `real`."""
    at = offsets(places, residues, strides, batch_and_head, CHANNELS, WINDOW)
    return rows(map, at, real, CHANNELS[VALUES], BLOCK[1 + VALUES]).to(tl.float32)


@triton.jit
def extra_gradients(
    maps, extra, logs, partials, scale, batch, runs, STRIDES, SIZES,
    WINDOW: tl.constexpr, CHANNELS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The gradients of a chunk of one head's keys outside the map, over a run of their item's queries.

    Args:
        maps: q and grad.
        extra: dense keys and values, (B, M, heads, channels).
        logs: the log-sum-exp and the inner sums.
        partials: (runs, B, M, heads, channels) in fp32 of keys and values, to be written.
        scale: of the products.
        batch: items, as 2n + 1.
        runs: their number, as 2n + 1.
        STRIDES: of q and grad.
        SIZES, WINDOW, CHANNELS: as in `primitives`.
        BLOCK: keys, queries at a time, d and e.
    """
    SIZES = true_sizes(SIZES)
    N = SIZES[0] * SIZES[1] * SIZES[2]
    runs = runs >> 1
    owner, run, begin, end = run_of(SIZES, 1, runs, BLOCK[1])  # pyright: ignore
    chunks = tl.cdiv(SIZES[4], BLOCK[0])
    pair = owner // chunks
    item = (pair // SIZES[3]).to(tl.int64)
    head = pair % SIZES[3]
    m = owner % chunks * BLOCK[0] + tl.arange(0, BLOCK[0])
    real = m < SIZES[4]
    at_extra = (item * SIZES[4] + m) * SIZES[3] + head
    k = rows(extra[0], at_extra * CHANNELS[0], real, CHANNELS[0], BLOCK[2])
    v = rows(extra[1], at_extra * CHANNELS[1], real, CHANNELS[1], BLOCK[3])
    d_k = tl.full((BLOCK[0], BLOCK[2]), 0.0, tl.float32)
    d_v = tl.full((BLOCK[0], BLOCK[3]), 0.0, tl.float32)
    for block in range(begin, end):
        number = block * BLOCK[1] + tl.arange(0, BLOCK[1])
        asked = number < N
        queries, residues = positions(number, SIZES, WINDOW)
        spot = offsets(queries, residues, STRIDES[0], (item, head), CHANNELS, WINDOW)
        q = rows(maps[0], spot, asked, CHANNELS[0], BLOCK[2])
        spot = offsets(queries, residues, STRIDES[1], (item, head), CHANNELS, WINDOW)
        g = rows(maps[1], spot, asked, CHANNELS[1], BLOCK[3])
        spot = (item * N + number) * SIZES[3] + head
        s = product(k, tl.trans(q)) * (scale * LOG2E)
        p = tl.exp2(tl.where(real[:, None], s, NEVER) - log_of(logs[0], spot, asked)[None, :])
        d_v = product_onto(p, g, d_v)
        u = product(v, tl.trans(g)) - tl.load(logs[1] + spot, mask=asked, other=0.0)[None, :]
        d_k = product_onto(p * u, q, d_k)
    at_extra += run.to(tl.int64) * (batch >> 1) * SIZES[4] * SIZES[3]
    put_rows(partials[0], at_extra * CHANNELS[0], d_k * scale, real, CHANNELS[0], BLOCK[2])
    put_rows(partials[1], at_extra * CHANNELS[1], d_v, real, CHANNELS[1], BLOCK[3])
