"""What the Triton kernels share: which positions a program owns, and the loads of one tap.

Every map is seen with three space axes. A tile has four axes: channels of one head (queries L, or d),
positions, groups of heads, heads of one group. A thread holds all channels of one group of heads, for one or
a few positions, so that a position's attention weights are computed once and meet its channels in registers;
neighbouring threads hold neighbouring groups, then positions.

- `BLOCK = (rows, columns, L, groups, heads, d, windows, piece)`: sizes of the tile, powers of two; windows of
  a row per thread (columns are then runs of as many windows), 1 where they would share nothing; how many
  taps of a row are unrolled.
- `CHANNELS = (L, h, d, heads_fastest, exact, unit)`: true sizes; whether the channels of value-like maps lie
  in memory as (d, h); whether L, h and d fill their tile; and a power of two that divides every position
  stride. The strides are given in this unit, so that the compiler sees their alignment.
- `SIZES = (Z, Y, X, Z', Y', X', B)`; `WINDOW = (*kernel, *stride, *dilation, *before)`.

Sizes and strides come as 2n + 1: for an argument of 1 or a multiple of 16 Triton would compile a kernel anew.
"""

import triton
import triton.language as tl
from triton.language.extra import libdevice
from triton.language.extra.cuda import num_threads

from qna.ops._shared.triton.runtime import INTERPRETED

if INTERPRETED:

    @triton.jit
    def exp(x):
        """e^x; the interpreter knows no functions of the cards' libraries."""
        return tl.exp(x)

else:

    @triton.jit
    def exp(x):
        """e^x, or 0 below 2^-126, which a sum of at least 1 cannot tell: two instructions instead of five."""
        return libdevice.fast_expf(x)


@triton.jit
def log(x):
    """The logarithm of a positive number in the normal range: two instructions on NVIDIA's cards."""
    return libdevice.fast_logf(x) if tl.target_info.is_cuda() else tl.log(x)


@triton.jit
def inverse(x):
    """1 / x to two units in the last place, for 2^-126 < x < 2^126."""
    one = tl.full(x.shape, 1.0, tl.float32)
    return libdevice.fast_dividef(one, x) if tl.target_info.is_cuda() else one / x


@triton.jit
def true_sizes(n):
    """The sizes that are meant by seven of 2n + 1."""
    return n[0] >> 1, n[1] >> 1, n[2] >> 1, n[3] >> 1, n[4] >> 1, n[5] >> 1, n[6] >> 1


@triton.jit
def share_of_windows(SIZES, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """The windows that a program owns, as `positions` (of the first of each run), and its `channels`."""
    parts = tl.cdiv(CHANNELS[1], BLOCK[3] * BLOCK[4])
    pid = tl.program_id(0)
    b, z, y, x = positions(pid // parts, SIZES[3], SIZES[4], tl.cdiv(SIZES[5], BLOCK[6]), BLOCK)
    return (b, z, y, x * BLOCK[6]), channels(pid % parts, CHANNELS, BLOCK)


@triton.jit
def positions(block, size_z, size_y, size_x, BLOCK: tl.constexpr):
    """Batch item, plane, rows (P,) and columns (P,) of the positions of one block of a map."""
    columns = tl.cdiv(size_x, BLOCK[1])
    rows = tl.cdiv(size_y, BLOCK[0])
    # remainders by products: a division is some twenty instructions
    line = block // columns
    plane = line // rows
    item = plane // size_z
    p = tl.arange(0, BLOCK[0] * BLOCK[1])
    y = (line - plane * rows) * BLOCK[0] + p // BLOCK[1]
    x = (block - line * columns) * BLOCK[1] + p % BLOCK[1]
    return item.to(tl.int64), plane - item * size_z, y, x


@triton.jit
def under(z, y, x, tz, ty, tx, SIZES, WINDOW: tl.constexpr):
    """The map positions under one tap of the windows z, y, x, and which (1, P, 1, 1) are in the map."""
    jz, jy, jx = reach(z, y, x, tz, ty, tx, WINDOW)  # pyright: ignore
    return jz, jy, jx, over_channels(within(jy, SIZES[1]) & within(jx, SIZES[2]) & within(jz, SIZES[0]))


@triton.jit
def reach(z, y, x, tz, ty, tx, WINDOW: tl.constexpr):
    """The positions under one tap of the windows z, y, x, in the map or beyond it."""
    jz = z * WINDOW[3] - WINDOW[9] + tz * WINDOW[6]
    jy = y * WINDOW[4] - WINDOW[10] + ty * WINDOW[7]
    jx = x * WINDOW[5] - WINDOW[11] + tx * WINDOW[8]
    return jz, jy, jx


@triton.jit
def within(j, size):
    """Whether 0 <= j < size, in one comparison."""
    return j.to(tl.uint32) < size.to(tl.uint32)


@triton.jit
def over_channels(t):
    """Spread (P,) over a tile."""
    return t[None, :, None, None]


@triton.jit
def offsets(b, z, y, x, strides, CHANNELS: tl.constexpr):
    """Element offsets (1, P, 1, 1) of positions in a map with these strides; 64-bit."""
    at = b * (strides[0] >> 1) + z.to(tl.int64) * (strides[1] >> 1) + y.to(tl.int64) * (strides[2] >> 1)
    return over_channels((at + x.to(tl.int64) * (strides[3] >> 1)) * CHANNELS[5])


@triton.jit
def column(strides, CHANNELS: tl.constexpr):
    """Elements from one position of a row to the next; 64-bit."""
    # a stride of 0 is known when compiling, and then a number of Python
    return tl.cast(strides[3] >> 1, tl.int64) * CHANNELS[5]


@triton.jit
def window_offsets(b, z, y, x, SIZES, CHANNELS: tl.constexpr):
    """Element offsets (1, P, 1, 1) of windows in a contiguous (B, *space', L, h); 64-bit."""
    at = ((b * SIZES[3] + z) * SIZES[4] + y) * SIZES[5] + x
    return over_channels(at) * (CHANNELS[0] * CHANNELS[1])


@triton.jit
def channels(part, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    """Offsets and mask of score channels, then of value channels, in part `part` of the heads."""
    L: tl.constexpr = CHANNELS[0]
    H: tl.constexpr = CHANNELS[1]
    D: tl.constexpr = CHANNELS[2]
    group = (part * BLOCK[3] + tl.arange(0, BLOCK[3]))[None, None, :, None]
    h = group * BLOCK[4] + tl.arange(0, BLOCK[4])[None, None, None, :]
    l = tl.arange(0, BLOCK[2])[:, None, None, None]
    d = tl.arange(0, BLOCK[5])[:, None, None, None]
    at_score = l * H + h
    if CHANNELS[3]:
        at_value = d * H + h
    else:
        at_value = h * D + d
        # times a 1 that the compiler cannot see: else it would hand out the scores to threads by runs of
        # heads, the values by runs of channels, and exchange them through shared memory under every tap
        at_score = l * H + h * tl.num_programs(1)
    return at_score, (l < L) & (h < H), at_value, (d < D) & (h < H)


@triton.jit
def load(pointer, inside, mask, EXACT: tl.constexpr, OTHER: tl.constexpr):
    """Load a tile in fp32, `OTHER` where not `inside` (1, P, 1, 1) or where the channel is masked."""
    if not EXACT:
        inside = inside & mask
    return widen(tl.load(pointer, mask=inside, other=OTHER))


@triton.jit
def widen(t):
    """In fp32. Two neighbours in bf16 take an instruction each; the compiler would take three for both."""
    if t.dtype == tl.bfloat16 and tl.target_info.is_cuda():
        # of a small tile a thread may have one number alone
        return pairs_of_bfloat16(t) if t.numel >= 2 * num_threads() else t.to(tl.float32)
    else:  # noqa: RET505 (triton would not drop what follows the branch)
        return t.to(tl.float32)


@triton.jit
def pairs_of_bfloat16(t):
    """In fp32, by the two halves of a register."""
    return tl.inline_asm_elementwise(
        "shl.b32 $0, $2, 16; and.b32 $1, $2, 0xffff0000;",
        "=r,=r,r",
        [t],
        dtype=tl.float32,
        is_pure=True,
        pack=2,
    )


@triton.jit
def load_table(pointer, mask, EXACT: tl.constexpr):
    """Load one tap of an fp32 table (L, 1, groups, heads); 0 where the channel is masked."""
    return tl.load(pointer) if EXACT else tl.load(pointer, mask=mask, other=0.0)
