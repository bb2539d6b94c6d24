"""How good answers to problems of points are: polygons, triangulations, tours; the paper's scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from qna._core.errors import InvalidInput
from qna.data.points import NOTHING, area, from_lowest, is_simple, places_of, tour_lengths

# parts of the answers that may be no simple polygon before the paper prints FAIL in the place of an area
FAILS_ABOVE = 0.01


@dataclass(frozen=True)
class HullScore:
    """Of answers to convex hulls, each a part of 1.

    Attributes:
        exact: answers that are the hull's polygon, wherever they begin and whichever way they run.
        simple: answers that are a polygon which does not meet itself.
        coverage: area of the simple polygons over that of their hulls, their mean; nan where none is simple.
    """

    exact: float
    simple: float
    coverage: float

    @property
    def fails(self) -> bool:
        """Whether so few polygons are simple that the paper prints no area."""
        return self.simple < 1 - FAILS_ABOVE


@dataclass(frozen=True)
class TriangleScore:
    """Of answers to triangulations, each a part of 1.

    Attributes:
        exact: answers that hold the triangles of the triangulation and no other, in any order.
        coverage: the triangulation's triangles that answers hold, the mean over samples.
    """

    exact: float
    coverage: float


@dataclass(frozen=True)
class TourScore:
    """Of tours.

    Attributes:
        length: mean length of the answers.
        shortest: mean length of the shortest tours.
        valid: part of the answers that visit every city once; the lengths are of these alone.
    """

    length: float
    shortest: float
    valid: float


def chosen(answers: Tensor) -> list[list[int]]:
    """Rows of indices as lists, without what fills them up."""
    return [[index for index in row if index != NOTHING] for row in answers.tolist()]


def same_polygon(first: Sequence[int], second: Sequence[int]) -> bool:
    """Whether two cycles of indices are one polygon: from any corner on, either way round."""
    begun = from_lowest(first)
    return from_lowest(second) in (begun, from_lowest(begun[::-1]))


def score_hulls(points: Tensor, answers: Tensor, hulls: Tensor) -> HullScore:
    """Score answers against exact hulls.

    Args:
        points: (B, N, 2).
        answers: int64 (B, T), -1 behind the end.
        hulls: int64 (B, T'), likewise.
    """
    pairs = _pairs(answers, hulls)
    exact, covered = 0, []
    for sample, (answer, hull) in zip(points, pairs, strict=True):
        exact += same_polygon(answer, hull)
        places = places_of(sample)
        polygon = [places[i] for i in answer]
        if is_simple(polygon):
            covered.append(abs(area(polygon)) / area([places[i] for i in hull]))
    mean = sum(covered) / len(covered) if covered else math.nan
    return HullScore(exact / len(pairs), len(covered) / len(pairs), mean)


def score_triangles(answers: Tensor, triangulations: Tensor) -> TriangleScore:
    """Score answers (B, T), three indices a triangle, against exact ones; a rest is a mistake."""
    exact, covered = 0, 0.0
    pairs = _pairs(answers, triangulations)
    for answer, right in pairs:
        found, wanted = _triangles(answer), _triangles(right)
        exact += found == wanted and len(answer) == len(right)
        covered += len(found & wanted) / len(wanted)
    return TriangleScore(exact / len(pairs), covered / len(pairs))


def score_tours(points: Tensor, answers: Tensor, shortest: Tensor) -> TourScore:
    """Score tours (B, N) of cities (B, N, 2) against the shortest."""
    everywhere = sorted(range(points.shape[1]))
    valid = [row for row, tour in enumerate(answers.tolist()) if sorted(tour) == everywhere]
    if not len(answers):
        raise InvalidInput("there are no answers to score")
    made = tour_lengths(points[valid], answers[valid]).mean().item() if valid else math.nan
    return TourScore(made, tour_lengths(points, shortest).mean().item(), len(valid) / len(answers))


def _pairs(answers: Tensor, right: Tensor) -> list[tuple[list[int], list[int]]]:
    if len(answers) != len(right) or not len(right):
        raise InvalidInput(f"there must be an answer for each sample, got {len(answers)} for {len(right)}")
    return list(zip(chosen(answers), chosen(right), strict=True))


def _triangles(answer: Sequence[int]) -> set[frozenset[int]]:
    return {frozenset(answer[i : i + 3]) for i in range(0, len(answer) - len(answer) % 3, 3)}
