"""How the kernels cut a map: boxes of positions, and chunks of what these see."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from qna.ops._shared.triton.arguments import CALLS, ceil, power
from qna.ops.neighborhood.geometry import WindowAxis

# rows and columns of the operands of matrix units, at least
LEAST = 16
# an axis of more positions is cut as if boxes divided it
LONG = 32


@dataclass(frozen=True)
class BoxTile:
    """How one kernel cuts its work.

    Attributes:
        owned: positions of a program; a power of two.
        chunk: of what they see, how many are taken at a time; a power of two.
        warps: warps of a program.
        stages: chunks that are on their way from memory at once.
    """

    owned: int
    chunk: int
    warps: int
    stages: int


def channels(size: int) -> int:
    """Channels of a tile for `size` of a head."""
    return max(LEAST, power(size))


def tile(kernel: str, bits: int, width: int) -> BoxTile:
    """For one of the kernels by products, the dtype's bits, and the wider of a head's channels in a tile.

    Chosen by the registers and the shared memory that the compiler needs, which tests hold to the smallest
    card's since sm_80; no card has measured them.
    """
    if bits == 32 and width > 64:
        return BoxTile(LEAST, 32, 16, 1) if kernel == "extra_gradients" else BoxTile(LEAST, 16, 8, 1)
    if kernel == "extra_gradients":
        return BoxTile(LEAST, 32 if width <= 64 else 16, 4, 1)
    if bits == 32:
        return BoxTile(32, 32, 4, 1)
    if width <= 64:
        return BoxTile(64 if kernel == "attend" else 32, 16 if kernel == "query_gradients" else 32, 4, 2)
    if width <= 128:
        return BoxTile(32, 16, 4, 1)
    return BoxTile(16, 32 if kernel == "attend" else 16, 4, 1)


def sweeps(bits: int, width: int) -> tuple[int, ...]:
    """The sweeps of each launch of `query_gradients`, as it counts them; chosen as `tile` is.

    Products of fp32 hold a row of each operand in registers, and both sweeps hold those of both products.
    """
    return (1, 2) if bits == 32 and width > 64 else (3,)


@lru_cache(CALLS)
def box(axes: Sequence[WindowAxis], owned: int, chunk: int) -> tuple[int, int, int]:
    """Planes, rows and columns of a box of `owned` positions that takes the fewest chunks for the whole map.

    What is loaded and stored for the box itself counts as a chunk. Of those that need as many, the one with
    the longest rows. Longer axes than `LONG` all have the same: each shape is compiled for itself.
    """
    groups = [ceil(axis.size, axis.dilation) for axis in axes]

    def chunks(sides: tuple[int, ...]) -> float:
        seen = [min(n, b + axis.kernel - 1) for n, b, axis in zip(groups, sides, axes, strict=True)]
        boxes = [ceil(n, b) if n <= LONG else n / b for n, b in zip(groups, sides, strict=True)]
        return math.prod(boxes) * (1 + ceil(math.prod(seen), chunk))

    best = min(_sides(owned, len(axes)), key=lambda sides: (chunks(sides), tuple(-n for n in sides[::-1])))
    z, y, x = (1,) * (3 - len(axes)) + best
    return z, y, x


def _sides(product: int, axes: int) -> Iterator[tuple[int, ...]]:
    """All powers of two, one for each axis, with this product."""
    if axes == 1:
        yield (product,)
        return
    side = 1
    while side <= product:
        for others in _sides(product // side, axes - 1):
            yield (side, *others)
        side *= 2
