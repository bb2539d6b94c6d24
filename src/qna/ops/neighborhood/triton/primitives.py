"""What the Triton kernels share: boxes of positions, what they see, and the scores of a chunk of it.

Every map is seen with three space axes. A program owns a box of positions that are equal modulo the dilation,
for one head; places are counted in that group. What the box sees is a box again, and is taken chunk by chunk.

- `BLOCK = (rows and planes and columns of the box, chunk, d, e)`: sizes of tiles, powers of two: `(Z, Y, X,
  chunk, d, e)`.
- `CHANNELS = (d, e, unit)`: true sizes; and a power of two that divides the strides of all maps, which are
  given in this unit, so that the compiler sees their alignment.
- `SIZES = (Z, Y, X, heads, extra keys)`; `WINDOW = (axes, *kernel, *dilation)`.
- `STRIDES`: (batch, *three axes, heads) of each map.
- `ranges`: for each axis the places that each query sees, first and last + 1, then those of the queries that
  see each key.

Sizes and strides come as 2n + 1: for an argument of 1 or a multiple of 16 Triton would compile a kernel anew.
"""

import triton
import triton.language as tl

from qna.ops._shared.triton.runtime import INTERPRETED

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NEVER = tl.constexpr(float("-inf"))
INTERPRETER = tl.constexpr(INTERPRETED)


@triton.jit
def true_sizes(n):
    """The sizes that are meant by five of 2n + 1."""
    return n[0] >> 1, n[1] >> 1, n[2] >> 1, n[3] >> 1, n[4] >> 1


@triton.jit
def owned(SIZES, WINDOW: tl.constexpr, BLOCK: tl.constexpr):
    """Batch item and head of a program, the residues of its group, and the first places of its box."""
    rest, tx, rx = cut(tl.program_id(0), SIZES[2], WINDOW[6], BLOCK[2])  # pyright: ignore
    ty, ry, tz, rz = 0, 0, 0, 0
    if WINDOW[0] > 1:
        rest, ty, ry = cut(rest, SIZES[1], WINDOW[5], BLOCK[1])
    if WINDOW[0] > 2:
        rest, tz, rz = cut(rest, SIZES[0], WINDOW[4], BLOCK[0])
    item = rest // SIZES[3]
    return (item.to(tl.int64), rest - item * SIZES[3]), (rz, ry, rx), (tz, ty, tx)


@triton.jit
def cut(number, size, DILATION: tl.constexpr, TILE: tl.constexpr):
    """Of a program's number what other axes decide, and the first place and the residue along this one."""
    tiles = tl.cdiv(tl.cdiv(size, DILATION), TILE)
    rest = number // tiles
    first = (number - rest * tiles) * TILE
    if DILATION == 1:
        return rest, first, 0
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        return rest // DILATION, first, rest % DILATION


@triton.jit
def lengths(residues, SIZES, WINDOW: tl.constexpr):
    """Places of a group along the three axes."""
    return (
        tl.cdiv(SIZES[0] - residues[0], WINDOW[4]),
        tl.cdiv(SIZES[1] - residues[1], WINDOW[5]),
        tl.cdiv(SIZES[2] - residues[2], WINDOW[6]),
    )


@triton.jit
def members(first, BLOCK: tl.constexpr):
    """The places of a box, (P,) along each axis."""
    p = tl.arange(0, BLOCK[0] * BLOCK[1] * BLOCK[2])
    return (
        first[0] + p // (BLOCK[1] * BLOCK[2]),
        first[1] + p // BLOCK[2] % BLOCK[1],
        first[2] + p % BLOCK[2],
    )


@triton.jit
def within(place, size):
    """Whether 0 <= place < size, in one comparison."""
    return place.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def in_group(places, length, WINDOW: tl.constexpr):
    """Which places are in the map."""
    inside = within(places[2], length[2])
    if WINDOW[0] > 1:
        inside &= within(places[1], length[1])
    if WINDOW[0] > 2:
        inside &= within(places[0], length[0])
    return inside


@triton.jit
def offsets(places, residues, strides, batch_and_head, CHANNELS: tl.constexpr, WINDOW: tl.constexpr):
    """Element offsets of places in a map with these strides; 64-bit."""
    item, head = batch_and_head
    at = item * (strides[0] >> 1) + head.to(tl.int64) * (strides[4] >> 1)
    at += (residues[2] + places[2] * WINDOW[6]).to(tl.int64) * (strides[3] >> 1)
    if WINDOW[0] > 1:
        at += (residues[1] + places[1] * WINDOW[5]).to(tl.int64) * (strides[2] >> 1)
    if WINDOW[0] > 2:
        at += (residues[0] + places[0] * WINDOW[4]).to(tl.int64) * (strides[1] >> 1)
    return at * CHANNELS[2]


@triton.jit
def numbers(places, residues, item, SIZES, WINDOW: tl.constexpr):
    """Numbers of places in a dense (B, *space); 64-bit."""
    at = item
    if WINDOW[0] > 2:
        at = at * SIZES[0] + residues[0] + places[0] * WINDOW[4]
    if WINDOW[0] > 1:
        at = at * SIZES[1] + residues[1] + places[1] * WINDOW[5]
    return at * SIZES[2] + residues[2] + places[2] * WINDOW[6]


@triton.jit
def table(ranges, axis: tl.constexpr, which: tl.constexpr, SIZES):
    """One of the four tables of an axis."""
    at = ranges + which * SIZES[axis]
    for before in tl.static_range(axis):  # pyright: ignore
        at += 4 * SIZES[before]
    return at


@triton.jit
def seen_along(
    ranges, axis: tl.constexpr, OF_KEYS: tl.constexpr, places, residues, real, SIZES, WINDOW: tl.constexpr
):
    """First place that each of `places` sees along an axis, and how many; none where not `real`."""
    at = residues[axis] + places[axis] * WINDOW[4 + axis]
    first = tl.load(table(ranges, axis, 2 * OF_KEYS, SIZES) + at, mask=real, other=0)
    last = tl.load(table(ranges, axis, 2 * OF_KEYS + 1, SIZES) + at, mask=real, other=0)
    return first, last - first


@triton.jit
def seen(ranges, OF_KEYS: tl.constexpr, places, residues, real, SIZES, WINDOW: tl.constexpr):
    """What each of `places` sees: first places along the axes, and counts; none where not `real`."""
    fx, cx = seen_along(ranges, 2, OF_KEYS, places, residues, real, SIZES, WINDOW)  # pyright: ignore
    fy, cy, fz, cz = fx, cx, fx, cx
    if WINDOW[0] > 1:
        fy, cy = seen_along(ranges, 1, OF_KEYS, places, residues, real, SIZES, WINDOW)
    if WINDOW[0] > 2:
        fz, cz = seen_along(ranges, 0, OF_KEYS, places, residues, real, SIZES, WINDOW)
    return (fz, fy, fx), (cz, cy, cx)


@triton.jit
def hull_along(
    ranges, axis: tl.constexpr, OF_KEYS: tl.constexpr, first, residues, length, SIZES,
    WINDOW: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """First place that a box sees along an axis, and how many: what is seen grows with the place."""
    last = tl.minimum(first[axis] + TILE, length[axis]) - 1
    at = residues[axis] + first[axis] * WINDOW[4 + axis]
    begin = tl.load(table(ranges, axis, 2 * OF_KEYS, SIZES) + at)
    at = residues[axis] + last * WINDOW[4 + axis]
    end = tl.load(table(ranges, axis, 2 * OF_KEYS + 1, SIZES) + at)
    return begin, tl.maximum(end - begin, 0)


@triton.jit
def hull(
    ranges, OF_KEYS: tl.constexpr, first, residues, length, SIZES,
    WINDOW: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The box that a box sees: first places along the axes, and sizes."""
    bx, nx = hull_along(ranges, 2, OF_KEYS, first, residues, length, SIZES, WINDOW, BLOCK[2])  # pyright: ignore
    by, ny, bz, nz = 0, 1, 0, 1
    if WINDOW[0] > 1:
        by, ny = hull_along(ranges, 1, OF_KEYS, first, residues, length, SIZES, WINDOW, BLOCK[1])
    if WINDOW[0] > 2:
        bz, nz = hull_along(ranges, 0, OF_KEYS, first, residues, length, SIZES, WINDOW, BLOCK[0])
    return (bz, by, bx), (nz, ny, nx)


@triton.jit
def chunk_of(start, begin, extent, WINDOW: tl.constexpr, CHUNK: tl.constexpr):
    """Places of a chunk of a hull; the last chunk goes on beyond it, where nothing is seen."""
    n = start + tl.arange(0, CHUNK)
    if WINDOW[0] == 1:
        return n, n, begin[2] + n
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        line = n // extent[2]
        x = begin[2] + n - line * extent[2]
        if WINDOW[0] == 2:
            return n, begin[1] + line, x
        else:  # noqa: RET505
            plane = line // extent[1]
            return begin[0] + plane, begin[1] + line - plane * extent[1], x


@triton.jit
def pairs(window, places, WINDOW: tl.constexpr):
    """Which pairs (P, Q) of an owner of a window and one of `places` see each other."""
    first, count = window
    found = within(places[2][None, :] - first[2][:, None], count[2][:, None])
    if WINDOW[0] > 1:
        found &= within(places[1][None, :] - first[1][:, None], count[1][:, None])
    if WINDOW[0] > 2:
        found &= within(places[0][None, :] - first[0][:, None], count[0][:, None])
    return found


@triton.jit
def in_table(places, WINDOW: tl.constexpr):
    """Places by a number whose differences, from query to key, are entries of the bias from the middle on."""
    at = places[2]
    if WINDOW[0] > 1:
        at += places[1] * (2 * WINDOW[3] - 1)
    if WINDOW[0] > 2:
        at += places[0] * ((2 * WINDOW[3] - 1) * (2 * WINDOW[2] - 1))
    return at


@triton.jit
def middle(bias, head, WINDOW: tl.constexpr):
    """Where the entry of a query that is its own key is, of a dense (heads, *(2 kernel - 1)) in fp32."""
    ENTRIES: tl.constexpr = (2 * WINDOW[1] - 1) * (2 * WINDOW[2] - 1) * (2 * WINDOW[3] - 1)
    return bias + head.to(tl.int64) * ENTRIES + ENTRIES // 2


@triton.jit
def rows(map, at, real, SIZE: tl.constexpr, TILE: tl.constexpr):
    """The channels of positions, 0 where not `real`: (n, TILE)."""
    c = tl.arange(0, TILE)[None, :]
    mask = real[:, None]
    if SIZE < TILE:
        mask &= c < SIZE
    return tl.load(map + at[:, None] + c, mask=mask, other=0.0)


@triton.jit
def put_rows(map, at, t, real, SIZE: tl.constexpr, TILE: tl.constexpr):
    """Store (n, TILE) as the channels of positions."""
    c = tl.arange(0, TILE)[None, :]
    mask = real[:, None]
    if SIZE < TILE:
        mask &= c < SIZE
    tl.store(map + at[:, None] + c, t.to(map.dtype.element_ty), mask=mask)


@triton.jit
def product(a, b):
    """The matrix product in fp32, of operands as maps are stored; `a` may be in fp32 and is rounded."""
    if INTERPRETER:  # which knows no products of bf16, and could but truncate to it
        return tl.dot(a.to(tl.float32), b.to(tl.float32), input_precision="ieee")
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        return tl.dot(a.to(b.dtype), b, input_precision="ieee")


@triton.jit
def product_onto(a, b, sums):
    """As `product`, added to `sums`."""
    if INTERPRETER:
        return tl.dot(a.to(tl.float32), b.to(tl.float32), sums, input_precision="ieee")
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        return tl.dot(a.to(b.dtype), b, sums, input_precision="ieee")


@triton.jit
def allowed_by(mask, places, residues, item, real, SIZES, WINDOW: tl.constexpr):
    """Which keys a mask lets be attended; outside of the map all, which it does not concern."""
    at = numbers(places, residues, item, SIZES, WINDOW)
    return tl.load(mask + at, mask=real, other=1) != 0


@triton.jit
def log_of(lse, at, real):
    """The log-sum-exp to base 2, +inf where nothing is attended: then all shares are 0."""
    log = tl.load(lse + at, mask=real, other=NEVER)
    return tl.where(log == NEVER, float("inf"), log * LOG2E)
