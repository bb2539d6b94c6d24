"""Convex hulls, and what polygons are: exact for points of single precision in the unit square.

Coordinates that are multiples of 2^-24, as torch draws them, have differences of 25 bits, products of 50 and
differences of these of 51: double precision holds them all, so that the side of a line on which a point
lies is never rounded.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from qna._core.errors import InvalidInput

# x, y
Place = Sequence[float]


def places_of(points: Tensor) -> list[list[float]]:
    """The points (N, 2) of a tensor as Python numbers.

    Raises:
        InvalidInput: another shape, or coordinates that are not finite.
    """
    if points.ndim != 2 or points.shape[1] != 2 or not points.is_floating_point():
        raise InvalidInput(f"points must be real (N, 2), got {points.dtype} {tuple(points.shape)}")
    if not bool(torch.isfinite(points).all()):
        raise InvalidInput("points must be finite")
    return points.double().tolist()


def turn(a: Place, b: Place, c: Place) -> float:
    """Twice the area of the triangle a, b, c: above 0 where it runs counter-clockwise."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def convex_hull(places: Sequence[Place]) -> list[int]:
    """Indices of the hull's corners, counter-clockwise, the lowest index first: the paper's order.

    Andrew's monotone chain, O(N log N). Points on an edge are no corners; of points at one place the one with
    the lowest index counts. Points on one line have a hull of their two ends, one point of itself.
    """
    index: dict[tuple[float, ...], int] = {}
    for i, place in enumerate(places):
        index.setdefault(tuple(place), i)
    order = sorted(index)
    corners = _chain(order)[:-1] + _chain(order[::-1])[:-1] if len(order) > 1 else order
    return from_lowest([index[place] for place in corners])


def from_lowest(cycle: Sequence[int]) -> list[int]:
    """The same cycle, its lowest number first."""
    if not cycle:
        return []
    first = cycle.index(min(cycle))
    return [*cycle[first:], *cycle[:first]]


def area(polygon: Sequence[Place]) -> float:
    """Of a simple polygon, by the shoelace formula; above 0 where it runs counter-clockwise."""
    return sum(turn(polygon[0], b, c) for b, c in pairwise(polygon)) / 2


def is_simple(polygon: Sequence[Place]) -> bool:
    """Whether the closed line through these places, at least three, nowhere meets itself.  O(k^2)."""
    corners = len(polygon)
    if corners < 3 or len({tuple(place) for place in polygon}) < corners:
        return False
    edges = [(polygon[i], polygon[(i + 1) % corners]) for i in range(corners)]
    for i, (a, b) in enumerate(edges):
        # edges side by side share a corner: they meet elsewhere where one runs back over the other
        c = edges[(i + 1) % corners][1]
        if turn(a, b, c) == 0 and (a[0] - b[0]) * (c[0] - b[0]) + (a[1] - b[1]) * (c[1] - b[1]) > 0:
            return False
        for j in range(i + 2, corners):
            if (j + 1) % corners != i and _meet(a, b, *edges[j]):
                return False
    return True


def _chain(order: list[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """Of sorted places those that turn counter-clockwise; `turn` written out, as training draws a million."""
    chain: list[tuple[float, ...]] = []
    for place in order:
        x, y = place
        while len(chain) > 1:
            (ax, ay), (bx, by) = chain[-2:]
            if (bx - ax) * (y - ay) - (by - ay) * (x - ax) > 0:
                break
            chain.pop()
        chain.append(place)
    return chain


def _meet(a: Place, b: Place, c: Place, d: Place) -> bool:
    """Whether the segments a b and c d have a place in common."""
    sides = turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b)
    if sides[0] * sides[1] < 0 and sides[2] * sides[3] < 0:
        return True
    pairs = zip(sides, ((a, b, c), (a, b, d), (c, d, a), (c, d, b)), strict=True)
    return any(side == 0 and _between(*places) for side, places in pairs)


def _between(a: Place, b: Place, c: Place) -> bool:
    """Whether c, on the line through a and b, lies between them."""
    return all(min(a[k], b[k]) <= c[k] <= max(a[k], b[k]) for k in (0, 1))
