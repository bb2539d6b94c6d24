"""Problems of points in the unit square that sequences of the points themselves answer, drawn by a seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qna._core.errors import InvalidInput, check_choice
from qna.data.points.geometry import convex_hull
from qna.data.points.tours import MOST_CITIES, shortest_tours
from qna.data.points.triangulation import delaunay

# fills answers behind their end
NOTHING = -1


@dataclass(frozen=True)
class PointBatch:
    """Problems with their answers.

    Attributes:
        points: fp32 (B, N, 2); zeros behind the points of a sample that has fewer than the others.
        answers: int64 (B, T), indices of points; -1 behind the end of an answer.
        lengths: int64 (B,), the points of each sample.
    """

    points: Tensor
    answers: Tensor
    lengths: Tensor


@dataclass(frozen=True)
class PointProblem:
    """A kind of problem.

    Attributes:
        name: of the kind.
        text: what is asked, and the order of the answer.
        least: points at least.
        most: points at most; None for any.
        ends: whether the length of an answer is part of it.
        answers: of points (B, N, 2), as lists.
        longest: steps of an answer at most, of N points.
    """

    name: str
    text: str
    least: int
    most: int | None
    ends: bool
    answers: Callable[[Tensor], list[list[int]]]
    longest: Callable[[int], int]

    def draw(self, batch: int, sizes: int | Sequence[int], seed: int) -> PointBatch:
        """Draw points uniformly in the unit square and answer exactly.

        Args:
            batch: samples.
            sizes: points of every sample, or (least, most) that each draws its number from.
            seed: all follows from it.

        Raises:
            InvalidInput: sizes that the problem has no exact answer for.
        """
        low, high = (sizes, sizes) if isinstance(sizes, int) else sizes
        if not self.least <= low <= high or (self.most is not None and high > self.most):
            bound = "" if self.most is None else f" to {self.most}"
            raise InvalidInput(f"{self.name}: points must be {self.least}{bound} or more, got {sizes}")
        generator = torch.Generator().manual_seed(seed)
        lengths = torch.randint(low, high + 1, (batch,), generator=generator)
        points = torch.rand(batch, high, 2, generator=generator)
        points[torch.arange(high) >= lengths[:, None]] = 0.0
        answers: list[list[int]] = [[]] * batch
        for size in lengths.unique().tolist():
            rows = (lengths == size).nonzero()[:, 0]
            for row, answer in zip(rows.tolist(), self.answers(points[rows, :size]), strict=True):
                answers[row] = answer
        return PointBatch(points, padded(answers), lengths)


def padded(answers: Sequence[Sequence[int]]) -> Tensor:
    """Lists as one tensor (B, T), `NOTHING` behind their ends."""
    longest = max(map(len, answers), default=0)
    return torch.tensor([[*answer, *[NOTHING] * (longest - len(answer))] for answer in answers]).reshape(
        len(answers), longest
    )


def _hulls(points: Tensor) -> list[list[int]]:
    return [convex_hull(places) for places in points.double().tolist()]


def _triangulations(points: Tensor) -> list[list[int]]:
    return [[corner for triangle in delaunay(sample) for corner in triangle] for sample in points]


PROBLEMS = {
    problem.name: problem
    for problem in (
        PointProblem(
            "hull",
            "Corners of the convex hull, counter-clockwise, the lowest index first.",
            3, None, True, _hulls, lambda points: points,
        ),
        PointProblem(
            "delaunay",
            "Triangles of the Delaunay triangulation, corners by index, triangles by their incentres.",
            3, None, True, _triangulations, lambda points: 3 * max(2 * points - 5, 1),
        ),
        PointProblem(
            "tour",
            "The shortest closed tour of all cities, from city 0.",
            3, MOST_CITIES, False, lambda points: shortest_tours(points).tolist(), lambda points: points,
        ),
    )
}  # fmt: skip


def point_problem(name: str) -> PointProblem:
    """The kind of that name: "hull", "delaunay" or "tour"."""
    return PROBLEMS[check_choice("problem of points", name, PROBLEMS)]
