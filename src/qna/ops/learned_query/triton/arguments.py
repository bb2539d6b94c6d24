"""Sizes, strides and tables of a call as the kernels take them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from qna.ops._shared.window import Window

# of so many calls of different sizes the plans are kept: to make one takes longer than to launch it
CALLS = 1024


class Maps(NamedTuple):
    """Sizes, strides and window of one call, in the form that the kernels take.

    Attributes:
        sizes: of the map, then of the windows, with three axes each, then the batch; `unspecialised`.
        strides: (batch, *three axes) of each map, in `unit`s; `unspecialised`.
        unit: a power of two that divides every stride.
        window: kernel, stride, dilation and margin before, with three axes each.
    """

    sizes: tuple[int, ...]
    strides: tuple[tuple[int, ...], ...]
    unit: int
    window: tuple[int, ...]

    @classmethod
    def of(cls, scores: Tensor, window: Window, maps: tuple[Tensor, ...]) -> Maps:
        """From scores (B, *space, L, h), and all `maps` whose strides a kernel is to know."""
        return _maps(scores.shape, window, tuple((m.shape, m.stride()) for m in maps))


@lru_cache(CALLS)
def _maps(
    scores: tuple[int, ...], window: Window, maps: tuple[tuple[tuple[int, ...], tuple[int, ...]], ...]
) -> Maps:
    # an axis of one position has no stride: what torch reports for it must not cost alignment
    strides = [
        [0 if n == 1 else s for n, s in zip(shape[:-2], stride[:-2], strict=True)] for shape, stride in maps
    ]
    unit = math.gcd(16, *(s for row in strides for s in row))
    return Maps(
        unspecialised((*three_axes(scores[1:-2], 1), *three_axes(window.out, 1), scores[0])),
        tuple(
            unspecialised((row[0] // unit, *three_axes([s // unit for s in row[1:]], 0))) for row in strides
        ),
        unit,
        (
            *three_axes(window.kernel, 1),
            *three_axes(window.stride, 1),
            *three_axes(window.dilation, 1),
            *three_axes(window.before, 0),
        ),
    )


def unspecialised(numbers: tuple[int, ...]) -> tuple[int, ...]:
    """2n + 1 of each: neither 1 nor a multiple of 16, for which the kernels would be compiled anew."""
    return tuple(2 * n + 1 for n in numbers)


def three_axes(axes, fill: int) -> tuple[int, ...]:
    """One to three axes as three, the new ones first."""
    return (*(fill,) * (3 - len(axes)), *axes)


def ceil(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


def power(n: int) -> int:
    """The least power of two that is at least n."""
    return 1 << (n - 1).bit_length()


def parameter(t: Tensor | None) -> Tensor | None:
    """Bias or weight as the kernels read them."""
    return None if t is None else t.float().contiguous()


def dense(t: Tensor, transposed: bool) -> Tensor:
    """`t` (..., m, n), copied unless its last two axes lie densely in this order, or `transposed`."""
    if transposed:
        return dense(t.transpose(-1, -2), False).transpose(-1, -2)
    (m, n), (sm, sn) = t.shape[-2:], t.stride()[-2:]
    is_dense = (n == 1 or sn == 1) and (m == 1 or sm == n)
    return t if is_dense else t.contiguous()
