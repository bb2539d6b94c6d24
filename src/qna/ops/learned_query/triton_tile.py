"""What the Triton kernels share: which positions a program owns, and the loads of one tap.

Every map is seen with three space axes. A tile is (channels, positions, heads): `BLOCK = (rows, columns, L, h,
d)` holds its sizes, powers of two; `CHANNELS = (L, h, d, heads_fastest, exact, unit)` the true sizes, how the
channels of value-like maps lie in memory, whether L, h and d fill their tile, and a power of two that divides
every position stride, in which the strides are given so that the compiler sees the alignment.
`SIZES = (Z, Y, X, Z', Y', X')`, `WINDOW = (kernel, stride, dilation, before)` of three axes each.
"""

import triton
import triton.language as tl


@triton.jit
def positions(block, size_z, size_y, size_x, BLOCK: tl.constexpr):
    """Batch item, plane, and rows and columns (P,) of the positions of one block of a map."""
    columns = tl.cdiv(size_x, BLOCK[1])
    rows = tl.cdiv(size_y, BLOCK[0])
    plane = block // (rows * columns)
    p = tl.arange(0, BLOCK[0] * BLOCK[1])
    y = block // columns % rows * BLOCK[0] + p // BLOCK[1]
    x = block % columns * BLOCK[1] + p % BLOCK[1]
    return (plane // size_z).to(tl.int64), plane % size_z, y, x


@triton.jit
def offsets(b, z, y, x, strides, CHANNELS: tl.constexpr):
    """Element offsets (P,) of positions in a map with these strides; 64-bit."""
    at = b * strides[0] + z.to(tl.int64) * strides[1] + y.to(tl.int64) * strides[2]
    return (at + x.to(tl.int64) * strides[3]) * CHANNELS[5]


@triton.jit
def channels(head, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Offsets and mask of score channels (L, 1, h), then of value channels (d, 1, h), from head `head` on."""
    L: tl.constexpr = CHANNELS[0]
    H: tl.constexpr = CHANNELS[1]
    D: tl.constexpr = CHANNELS[2]
    h = (head + tl.arange(0, BLOCK[3]))[None, None, :]
    l = tl.arange(0, BLOCK[2])[:, None, None]
    d = tl.arange(0, BLOCK[4])[:, None, None]
    if CHANNELS[3]:
        at_value = d * H + h
    else:
        at_value = d + h * D
    return l * H + h, (l < L) & (h < H), at_value, (d < D) & (h < H)


@triton.jit
def load(pointer, inside, mask, EXACT: tl.constexpr, OTHER: tl.constexpr):
    """Load a tile in fp32, `OTHER` where the position is not `inside` (1, P, 1) or the channel is masked."""
    if not EXACT:
        inside = inside & mask
    return tl.load(pointer, mask=inside, other=OTHER).to(tl.float32)


@triton.jit
def load_table(pointer, mask, EXACT: tl.constexpr):
    """Load one tap's row (L, 1, h) of an fp32 table; 0 where the channel is masked."""
    if EXACT:
        row = tl.load(pointer)
    else:
        row = tl.load(pointer, mask=mask, other=0.0)
    return row
