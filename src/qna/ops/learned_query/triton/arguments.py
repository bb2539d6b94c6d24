"""Sizes, strides and tables of a call as the kernels take them."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from torch import Tensor

from qna.ops._shared.triton.arguments import CALLS, in_units, three_axes, unspecialised
from qna.ops._shared.window import Window


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
    unit, strides = in_units([(shape[:-2], stride[:-2]) for shape, stride in maps])
    return Maps(
        unspecialised((*three_axes(scores[1:-2], 1), *three_axes(window.out, 1), scores[0])),
        tuple(unspecialised((row[0], *three_axes(row[1:], 0))) for row in strides),
        unit,
        (
            *three_axes(window.kernel, 1),
            *three_axes(window.stride, 1),
            *three_axes(window.dilation, 1),
            *three_axes(window.before, 0),
        ),
    )
