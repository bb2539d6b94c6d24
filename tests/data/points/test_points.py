"""Exact answers: held to SciPy, to exhaustive search, and to the orders of the paper."""

from itertools import permutations

import pytest
import torch
from scipy.spatial import ConvexHull, Delaunay

from qna._core.errors import InvalidInput, UnknownName
from qna.data.points import (
    NOTHING,
    area,
    convex_hull,
    delaunay,
    from_lowest,
    incentres,
    is_simple,
    point_problem,
    shortest_tours,
    tour_lengths,
)


def drawn(batch, count, seed=0):
    return torch.rand(batch, count, 2, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [3, 5, 10, 50, 200])
def test_hulls_are_scipys(count):
    for sample in drawn(60, count):
        wanted = from_lowest(ConvexHull(sample.double().numpy()).vertices.tolist())
        hull = convex_hull(sample.tolist())
        assert hull == wanted
        assert hull[0] == min(hull)
        assert area([sample[i].tolist() for i in hull]) == pytest.approx(
            ConvexHull(sample.double().numpy()).volume
        )


def test_hulls_of_points_on_lines_and_at_one_place():
    square = [(0.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]
    middles = [(0.5, 0.0), (0.5, 0.5), (1.0, 0.5)]
    assert convex_hull([*middles, *square]) == [3, 5, 4, 6]
    # the lowest index at a place counts
    assert convex_hull([*square, *square]) == [0, 2, 1, 3]
    assert convex_hull([(0.5, 0.5), (0.0, 0.0), (1.0, 1.0)]) == [1, 2]
    assert convex_hull([(0.5, 0.5)] * 3) == [0]
    assert convex_hull([]) == []


def test_the_side_of_a_line_is_never_rounded():
    """Points of single precision, one step beside a line: signs as whole numbers have them."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        a, b = torch.randint(0, 2**23, (2, 2), generator=generator).tolist()
        middle = [(p + q) // 2 for p, q in zip(a, b, strict=True)]
        middle[1] += 1
        exact = (b[0] - a[0]) * (middle[1] - a[1]) - (b[1] - a[1]) * (middle[0] - a[0])
        places = [[x / 2**24 for x in place] for place in (a, middle, b)]
        assert len(convex_hull(places)) == (3 if exact else 2)


@pytest.mark.parametrize("count", [3, 4, 5, 10, 20])
def test_triangulations_are_scipys(count):
    for sample in drawn(25, count, seed=1):
        found = delaunay(sample)
        wanted = {tuple(sorted(t)) for t in Delaunay(sample.double().numpy()).simplices.tolist()}
        assert set(found) == wanted
        assert len(found) == 2 * count - 2 - len(convex_hull(sample.tolist()))
        assert all(i < j < k for i, j, k in found)
        centres = incentres(sample.double(), torch.tensor(found)).tolist()
        assert centres == sorted(centres)


def test_an_incentre_is_as_far_from_every_side():
    points = torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]], dtype=torch.float64)
    centre = incentres(points, torch.tensor([[0, 1, 2]]))
    torch.testing.assert_close(centre, torch.tensor([[1.0, 1.0]], dtype=torch.float64))


@pytest.mark.parametrize(
    ("places", "words"),
    [
        ([[0, 0], [0, 1], [1, 0], [1, 1]], "one empty circle"),
        ([[0, 0], [0.25, 0.25], [1, 1]], "one line"),
        ([[0, 0], [1, 1]], "at least 3"),
        ([[0, 0], [1, 1], [float("nan"), 0]], "finite"),
    ],
)
def test_what_has_no_one_triangulation_is_refused(places, words):
    with pytest.raises(InvalidInput, match=words):
        delaunay(torch.tensor(places).float())


@pytest.mark.parametrize("cities", [3, 4, 5, 7, 8])
def test_tours_are_the_shortest_of_all(cities):
    points = drawn(3, cities, seed=2)
    tours = shortest_tours(points)
    every = torch.tensor([[0, *rest] for rest in permutations(range(1, cities))])
    for b in range(3):
        lengths = tour_lengths(points[b : b + 1].expand(len(every), -1, -1), every)
        found = tour_lengths(points[b : b + 1], tours[b : b + 1])
        assert found.item() == pytest.approx(lengths.min().item(), rel=1e-12)
        assert sorted(tours[b].tolist()) == list(range(cities))
        assert tours[b, 0] == 0
        assert tours[b, 1] < tours[b, -1]


def test_tours_of_the_most_cities_and_of_few():
    """Twelve cities on a circle are visited around it."""
    order = torch.tensor([0, 7, 3, 11, 5, 1, 9, 2, 10, 4, 8, 6])
    angles = 2 * torch.pi * torch.arange(12) / 12
    points = torch.zeros(1, 12, 2)
    points[0, order] = torch.stack([angles.cos(), angles.sin()], 1)
    assert shortest_tours(points)[0].tolist() == [0, *order.tolist()[1:][::-1]]
    assert shortest_tours(drawn(2, 1)).tolist() == [[0], [0]]
    assert shortest_tours(drawn(2, 2)).tolist() == [[0, 1], [0, 1]]
    with pytest.raises(InvalidInput, match="1 to 12"):
        shortest_tours(drawn(1, 13))


def test_a_length_counts_the_way_back():
    points = torch.tensor([[[0.0, 0.0], [3.0, 0.0], [3.0, 4.0]]])
    assert tour_lengths(points, torch.tensor([[0, 1, 2]])).item() == 3 + 4 + 5


@pytest.mark.parametrize(
    ("polygon", "simple"),
    [
        ([(0, 0), (1, 0), (1, 1), (0, 1)], True),
        ([(0, 0), (1, 1), (1, 0), (0, 1)], False),
        ([(0, 0), (1, 0)], False),
        ([(0, 0), (1, 0), (1, 1), (0, 0)], False),
        # a corner on another edge
        ([(0, 0), (2, 0), (2, 2), (1, 0), (0, 2)], False),
        # back over the edge before
        ([(0, 0), (2, 0), (1, 0)], False),
        # on along the same line
        ([(0, 0), (1, 0), (2, 0), (1, 1)], True),
        # not convex
        ([(0, 0), (2, 0), (1, 0.5), (1, 2)], True),
    ],
)
def test_simple_polygons(polygon, simple):
    assert is_simple(polygon) is simple


@pytest.mark.parametrize("name", ["hull", "delaunay", "tour"])
def test_problems_of_mixed_sizes(name):
    problem = point_problem(name)
    batch = problem.draw(12, (4, 7), seed=3)
    assert batch.points.shape == (12, 7, 2)
    assert set(batch.lengths.tolist()) <= {4, 5, 6, 7}
    assert len(set(batch.lengths.tolist())) > 1
    for points, answer, length in zip(batch.points, batch.answers, batch.lengths.tolist(), strict=True):
        assert not points[length:].any()
        kept = answer[answer != NOTHING]
        assert (answer[len(kept) :] == NOTHING).all()
        assert kept.tolist() == problem.answers(points[None, :length])[0]
        assert len(kept) <= problem.longest(length)
    again = problem.draw(12, (4, 7), seed=3)
    assert torch.equal(again.points, batch.points)
    assert torch.equal(again.answers, batch.answers)
    assert not torch.equal(problem.draw(12, (4, 7), seed=4).points, batch.points)


@pytest.mark.parametrize("sizes", [2, (5, 4)])
def test_sizes_without_an_answer_are_refused(sizes):
    with pytest.raises(InvalidInput, match="points must be"):
        point_problem("hull").draw(1, sizes, 0)
    with pytest.raises(InvalidInput, match="3 to 12"):
        point_problem("tour").draw(1, 13, 0)


def test_an_unknown_problem_names_the_nearest():
    with pytest.raises(UnknownName, match="hull"):
        point_problem("hulls")
