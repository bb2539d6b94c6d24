"""Delaunay triangulations, by the definition: triangles whose circumcircle holds no other point."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from qna._core.errors import InvalidInput
from qna.data.points.geometry import places_of

# of the sum of the terms' sizes: more than rounding in double precision can make of a determinant of 0
_ROUNDING = 4e-15


def delaunay(points: Tensor) -> list[tuple[int, int, int]]:
    """Triangles (i, j, k), i < j < k, by the places of their incentres, x before y: the paper's order.

    By the definition, O(N^4) in time and memory: N to about 50.

    Args:
        points: (N, 2), at least 3 of them.

    Raises:
        InvalidInput: all points lie on one line, or four lie on one circle with no other inside, as far as
            double precision can tell: there is no one triangulation.
    """
    places_of(points)
    at, count = points.double(), len(points)
    if count < 3:
        raise InvalidInput(f"a triangulation needs at least 3 points, got {count}")
    triples = torch.tensor(list(combinations(range(count), 3)))
    twice = _cross(at[triples[:, 1]] - at[triples[:, 0]], at[triples[:, 2]] - at[triples[:, 0]])
    triples, twice = triples[twice != 0], twice[twice != 0]
    # seen from every point, lifted to the paraboloid: (triangles, corner, point, xy)
    from_point = at[triples][:, :, None] - at
    lifted = from_point.square().sum(-1)
    a, b, c = from_point.unbind(1)
    terms = torch.stack(
        [lifted[:, 0] * _cross(b, c), lifted[:, 1] * _cross(c, a), lifted[:, 2] * _cross(a, b)]
    )
    inside = terms.sum(0) * twice.sign()[:, None]
    unsure = inside.abs() <= _ROUNDING * terms.abs().sum(0)
    corner = torch.zeros_like(unsure).scatter(1, triples, True)
    empty = ~((inside > 0) & ~unsure & ~corner).any(1)
    if bool((unsure & ~corner)[empty].any()):
        raise InvalidInput(
            "four of the points lie on one empty circle: there is no one triangulation of them"
        )
    if not bool(empty.any()):
        raise InvalidInput("all points lie on one line: there is no triangulation of them")
    found = triples[empty]
    order = sorted(zip(incentres(at, found).tolist(), found.tolist(), strict=True))
    return [(i, j, k) for _, (i, j, k) in order]


def incentres(points: Tensor, triangles: Tensor) -> Tensor:
    """Centres of the inscribed circles: corners weighted by the opposite sides.  (T, 3) -> (T, 2)."""
    corners = points[triangles]
    opposite = (corners.roll(-1, 1) - corners.roll(-2, 1)).norm(dim=-1, keepdim=True)
    return (opposite * corners).sum(1) / opposite.sum(1)


def _cross(a: Tensor, b: Tensor) -> Tensor:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
