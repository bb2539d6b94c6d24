"""Arithmetic of the op, by shapes: two FLOPs per multiply-add."""

from __future__ import annotations

import math
from collections.abc import Sequence

from qna.ops.neighborhood.cases import NeighborhoodCase
from qna.ops.neighborhood.geometry import WindowAxis, window_axes


def flops(queries: Sequence[int], value_dim: int, extra: int, axes: Sequence[WindowAxis]) -> tuple[int, int]:
    """Of a forward and of a backward, for queries (B, *space, heads, d) and `extra` keys outside the map.

    Per pair of a query and a key that it attends: the score and the value. Backward, the score again, the
    gradient of its share, and those of query, key and value. A key of zeros outside the map counts nothing.
    """
    batch, *space, heads, dim = queries
    pairs = math.prod(axis.pairs() for axis in axes) + math.prod(space) * extra
    return (
        2 * batch * heads * pairs * (dim + value_dim),
        2 * batch * heads * pairs * (3 * dim + 2 * value_dim),
    )


def half_flops(keys: Sequence[int], axes: Sequence[WindowAxis]) -> int:
    """Of a half, and of each of its gradients, for keys or values (B, *space, heads, channels)."""
    batch, *_, heads, channels = keys
    return 2 * batch * heads * channels * math.prod(axis.pairs() for axis in axes)


def flops_of(case: NeighborhoodCase) -> tuple[int, int]:
    """FLOPs of a forward and of a backward of a case."""
    axes = window_axes(case.name, case.space, **case.window)
    return flops((case.batch, *case.space, case.heads, case.head_dim), case.values, case.extra, axes)
