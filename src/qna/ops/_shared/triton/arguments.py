"""Sizes and strides as Triton kernels take them."""

from __future__ import annotations

import math
from collections.abc import Sequence

# of so many calls of different sizes the plans are kept: to make one takes longer than to launch it
CALLS = 1024


def in_units(maps: Sequence[tuple[Sequence[int], Sequence[int]]]) -> tuple[int, list[list[int]]]:
    """A power of two, 16 at most, that divides all strides of maps (shape, strides), and these in that unit.

    So the compiler sees their alignment, whatever they are.
    """
    # an axis of one position has no stride: what torch reports for it must not cost alignment
    rows = [[0 if n == 1 else s for n, s in zip(shape, strides, strict=True)] for shape, strides in maps]
    unit = math.gcd(16, *(s for row in rows for s in row))
    return unit, [[s // unit for s in row] for row in rows]


def unspecialised(numbers: Sequence[int]) -> tuple[int, ...]:
    """2n + 1 of each: neither 1 nor a multiple of 16, for which the kernels would be compiled anew."""
    return tuple(2 * n + 1 for n in numbers)


def three_axes(axes: Sequence[int], fill: int) -> tuple[int, ...]:
    """One to three axes as three, the new ones first."""
    return (*(fill,) * (3 - len(axes)), *axes)


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()
