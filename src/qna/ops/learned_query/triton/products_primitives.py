"""What the kernels by matrix products share: patches of windows and the positions under them, operands.

- `PATCH = (rows, columns, chunk, chunks, patches, heads)`: windows of a patch, 16 in all; how many of the K
  positions under it are taken at a time, and how often; neighbouring patches and heads of a program.
- `CHANNELS`, `SIZES`, `STRIDES` and `WINDOW` are as in `primitives`; windows have one plane, and stride and
  dilation 1. All channels fill their tiles.
"""

import triton
import triton.language as tl

from qna.ops._shared.triton.runtime import INTERPRETED
from qna.ops.learned_query.triton.primitives import within

# sums of exponentials and their inverses beyond these may have lost or overflowed terms
LEAST = tl.constexpr(2.0**-60)
MOST = tl.constexpr(2.0**60)
LOG2E = tl.constexpr(1.4426950408889634)
INTERPRETER = tl.constexpr(INTERPRETED)


@triton.jit
def partition(planes, size_y, size_x, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """Which heads a program has, its first block of patches, from one to its next, and how many there are."""
    PARTS: tl.constexpr = CHANNELS[1] // PATCH[5]
    blocks = planes * tl.cdiv(size_y, PATCH[0]) * tl.cdiv(size_x, PATCH[1] * PATCH[4])
    pid = tl.program_id(0)
    return pid % PARTS, pid // PARTS, tl.num_programs(0) // PARTS, blocks


@triton.jit
def place(block, size_z, size_y, size_x, PATCH: tl.constexpr):
    """Batch item, plane, row and column of the first place of a block of patches."""
    columns = tl.cdiv(size_x, PATCH[1] * PATCH[4])
    rows = tl.cdiv(size_y, PATCH[0])
    line = block // columns
    plane = line // rows
    item = plane // size_z
    x = (block - line * columns) * (PATCH[1] * PATCH[4])
    return item.to(tl.int64), plane - item * size_z, (line - plane * rows) * PATCH[0], x


@triton.jit
def load_matrices(
    matrices, part, FLIPPED: tl.constexpr, PLAIN: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr
):
    """The matrices of a program's queries and heads by chunk: a tuple of (L * heads, 16, chunk)."""
    CHUNKS: tl.constexpr = PATCH[3]
    STEP: tl.constexpr = CHANNELS[0] * CHANNELS[1]
    K: tl.constexpr = PATCH[2] * PATCH[3]
    pairs = tl.reshape(score_channels(part, CHANNELS, PATCH), (CHANNELS[0] * PATCH[5],))
    at = matrices + (FLIPPED * 2 + PLAIN) * (STEP * 16 * K)
    at += (pairs[:, None, None] * 16 + tl.arange(0, 16)[None, :, None]) * K
    at += tl.arange(0, PATCH[2])[None, None, :]
    chunks = ()
    for chunk in tl.static_range(CHUNKS):
        chunks = chunks + (tl.load(at + chunk * PATCH[2]),)  # noqa: RUF005 (triton has no starred items)
    return chunks


@triton.jit
def score_channels(part, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """Offsets of a program's score channels, (L, heads)."""
    h = part * PATCH[5] + tl.arange(0, PATCH[5])
    return tl.arange(0, CHANNELS[0])[:, None] * CHANNELS[1] + h[None, :]


@triton.jit
def value_channels(part, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """Offsets of a program's value channels: (heads, d), or (d, heads) where the heads are fastest."""
    h = part * PATCH[5] + tl.arange(0, PATCH[5])
    d = tl.arange(0, CHANNELS[2])
    if CHANNELS[3]:  # noqa: SIM108 (the condition is the compiler's)
        at = d[:, None] * CHANNELS[1] + h[None, :]
    else:
        at = h[:, None] * CHANNELS[2] + d[None, :]
    return at[None, None, :, :]


@triton.jit
def around(y, x, size_y, size_x, chunk, WINDOW: tl.constexpr, PATCH: tl.constexpr):
    """Steps from (y, x) to what is under patches: rows (chunk, 1), columns (chunk, patches), what is real."""
    WIDTH: tl.constexpr = PATCH[1] + WINDOW[2] - 1
    q = chunk * PATCH[2] + tl.arange(0, PATCH[2])
    # kept from block to block, the steps of so many chunks would take the registers of the sums
    if PATCH[3] >= 4:
        q = made_anew(q)
    dy = (q // WIDTH)[:, None]
    dx = (q % WIDTH)[:, None] + tl.arange(0, PATCH[4])[None, :] * PATCH[1]
    few = (q < WIDTH * (PATCH[0] + WINDOW[1] - 1))[:, None]
    return dy, dx, within(y + dy, size_y) & within(x + dx, size_x) & few


@triton.jit
def owned(y, x, size_y, size_x, PATCH: tl.constexpr):
    """Steps from (y, x) to the places of the patches: rows (16, 1), columns (16, patches), what is real."""
    a = tl.arange(0, 16)
    dy = (a // PATCH[1])[:, None]
    dx = (a % PATCH[1])[:, None] + tl.arange(0, PATCH[4])[None, :] * PATCH[1]
    return dy, dx, (y + dy < size_y) & (x + dx < size_x)


@triton.jit
def corner(b, z, y, x, strides, CHANNELS: tl.constexpr):
    """Element offset of one position, 64-bit."""
    at = b * (strides[0] >> 1) + z.to(tl.int64) * (strides[1] >> 1) + y.to(tl.int64) * (strides[2] >> 1)
    return (at + x.to(tl.int64) * (strides[3] >> 1)) * CHANNELS[5]


@triton.jit
def near(dy, dx, strides, CHANNELS: tl.constexpr):
    """Element offsets of steps within a block."""
    return (dy * (strides[2] >> 1) + dx * (strides[3] >> 1)) * CHANNELS[5]


@triton.jit
def window_at(b, z, y, x, SIZES, CHANNELS: tl.constexpr):
    """Element offset of one window in a contiguous (B, *space', L, h), 64-bit."""
    return (((b * SIZES[3] + z) * SIZES[4] + y) * SIZES[5] + x) * (CHANNELS[0] * CHANNELS[1])


@triton.jit
def load_values(map, b, z, y, x, dy, dx, real, part, strides, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """Value-like channels at steps from (y, x), 0 where not `real`: (n, patches, *channels)."""
    at = map + corner(b, z, y, x, strides, CHANNELS)
    at += near(dy, dx, strides, CHANNELS)[:, :, None, None] + value_channels(part, CHANNELS, PATCH)
    return tl.load(at, mask=real[:, :, None, None], other=0.0)


@triton.jit
def store_values(map, t, b, z, y, x, steps, real, part, strides, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """Store (heads, 16, patches, d) at steps from (y, x)."""
    at = map + corner(b, z, y, x, strides, CHANNELS)
    at += near(steps[0], steps[1], strides, CHANNELS)[:, :, None, None] + value_channels(
        part, CHANNELS, PATCH
    )
    t = tl.permute(t, (1, 2, 3, 0)) if CHANNELS[3] else tl.permute(t, (1, 2, 0, 3))
    tl.store(at, t.to(map.dtype.element_ty), mask=real[:, :, None, None])


@triton.jit
def load_scores(map, b, z, y, x, dy, dx, real, pairs, strides, CHANNELS: tl.constexpr):
    """Scores at steps from (y, x) in fp32, -inf where not `real`: (n, patches, L, heads)."""
    at = map + corner(b, z, y, x, strides, CHANNELS)
    at += near(dy, dx, strides, CHANNELS)[:, :, None, None] + pairs[None, None, :, :]
    return tl.load(at, mask=real[:, :, None, None], other=float("-inf")).to(tl.float32)


@triton.jit
def representative(scores, b, z, y, x, pairs, strides, SIZES, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """The scores at (y, x) in each patch, or next to it at the border of the map: (patches, L, heads)."""
    y = tl.minimum(tl.maximum(y, 0), SIZES[1] - 1)
    dx = x + tl.arange(0, PATCH[4]) * PATCH[1]
    dx = tl.minimum(tl.maximum(dx, 0), SIZES[2] - 1).to(tl.int64) * (strides[3] >> 1) * CHANNELS[5]
    at = scores + corner(b, z, y, x * 0, strides, CHANNELS) + dx[:, None, None] + pairs[None, :, :]
    stand = tl.load(at).to(tl.float32)
    return tl.where(stand > float("-inf"), stand, 0.0)


@triton.jit
def shares(lse, real, stand, top):
    """The inverses of the windows' sums, relative to `stand` and `top`, and what is infinite if lost.

    They are 0 for windows without a position.
    """
    lse = tl.load(lse, mask=real[:, :, None, None], other=float("inf"))
    r = tl.exp2((stand[None, :, :, :] + top[None, None, :, :] - lse) * LOG2E)
    lost = ~((r <= MOST) & (r >= LEAST)) & (lse != float("inf"))
    return r, tl.where(lost, float("inf"), 0.0)


@triton.jit
def alarm(far, extent):
    """Set the flag if a number of `extent` is too large, or none."""
    for _ in tl.static_range(len(extent.shape)):  # pyright: ignore
        extent = tl.sum(extent, 0)
    if not (extent <= MOST):
        tl.store(far, 1)


@triton.jit
def over_rows(t, CHANNELS: tl.constexpr):
    """(n, patches, *channels) as (heads, n, patches, d)."""
    return tl.permute(t, (3, 0, 1, 2)) if CHANNELS[3] else tl.permute(t, (2, 0, 1, 3))


@triton.jit
def spread(v, e, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """Values (n, patches, *channels) times e (n, patches, L, heads): (L * heads, n, patches * d) in bf16."""
    v = v[:, :, None, :, :]
    e = e[:, :, :, None, :] if CHANNELS[3] else e[:, :, :, :, None]
    u = times(v, e)
    u = tl.permute(u, (2, 4, 0, 1, 3)) if CHANNELS[3] else tl.permute(u, (2, 3, 0, 1, 4))
    return tl.reshape(u, (CHANNELS[0] * PATCH[5], v.shape[0], PATCH[4] * CHANNELS[2]))


@triton.jit
def widened(e, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """(n, patches, L, heads) as (L * heads, n, patches * d): the same for all channels.

    Sums made of it lie where those of values do, and cost less than bringing them there.
    """
    return repeated(e, CHANNELS[2], CHANNELS, PATCH)


@triton.jit
def repeated(e, TIMES: tl.constexpr, CHANNELS: tl.constexpr, PATCH: tl.constexpr):
    """(n, patches, L, heads) as (L * heads, n, patches * TIMES)."""
    e = tl.permute(e, (2, 3, 0, 1))[:, :, :, :, None]
    e = tl.broadcast_to(e, (CHANNELS[0], PATCH[5], e.shape[2], PATCH[4], TIMES))
    return tl.reshape(e, (CHANNELS[0] * PATCH[5], e.shape[2], PATCH[4] * TIMES))


@triton.jit
def times(v, e):
    """Their product as an operand."""
    if INTERPRETER or not tl.target_info.is_cuda():
        return rounded(v.to(tl.float32) * e.to(tl.float32))
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        v, e = tl.broadcast(v, e)
        return tl.inline_asm_elementwise(
            "{ .reg .b32 none; mov.b32 none, 0x80008000; fma.rn.bf16x2 $0, $1, $2, none; }",
            "=r,r,r",
            [v, e],
            dtype=tl.bfloat16,
            is_pure=True,
            pack=2,
        )


@triton.jit
def rounded(t):
    """As matrix units take it: in bf16, to which the interpreter could but truncate."""
    return t if INTERPRETER else t.to(tl.bfloat16)


@triton.jit
def fenced(t):
    """An operand that the compiler makes here: elsewhere it would make it once for each channel."""
    if INTERPRETER or not tl.target_info.is_cuda():
        return rounded(t)
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        t = rounded(t)  # pyright: ignore
        return tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r", [t], dtype=tl.bfloat16, is_pure=False, pack=2
        )


@triton.jit
def made_anew(q):
    """The same integers, which the compiler does not know to be those of the block before."""
    if INTERPRETER or not tl.target_info.is_cuda():
        return q
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        return tl.inline_asm_elementwise(
            "mov.b32 $0, $1;", "=r,r", [q], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def product(a, b, sums):
    """`sums` and the matrix products of (batch, 16, n) and (batch, n, m)."""
    if INTERPRETER:  # its operands are in fp32
        return tl.dot(a, b, sums, input_precision="ieee")
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        return tl.dot(a, b, sums)
