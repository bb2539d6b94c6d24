"""Scores of polygons, triangulations and tours, by hand."""

import math

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data.points import padded
from qna.eval.pointing import same_polygon, score_hulls, score_tours, score_triangles

SQUARE = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0], [0.5, 0.25]])


def test_a_polygon_is_the_same_from_any_corner_and_either_way():
    assert same_polygon([0, 1, 2, 3], [2, 3, 0, 1])
    assert same_polygon([0, 1, 2, 3], [1, 0, 3, 2])
    assert not same_polygon([0, 1, 2, 3], [0, 2, 1, 3])
    assert not same_polygon([0, 1, 2], [0, 1, 2, 3])
    assert not same_polygon([], [0, 1, 2])


def test_hulls():
    answers = padded([[0, 1, 2, 3], [3, 2, 1, 0], [0, 1, 2], [0, 1, 4], [0, 2, 1, 3], [0, 1], []])
    score = score_hulls(SQUARE.expand(7, -1, -1), answers, torch.tensor([[0, 1, 2, 3]]).expand(7, -1))
    assert score.exact == pytest.approx(2 / 7)
    # a bow tie, a line and nothing are no polygon
    assert score.simple == pytest.approx(4 / 7)
    assert score.coverage == pytest.approx((1 + 1 + 0.5 + 0.125) / 4)
    assert score.fails


def test_one_of_a_hundred_may_meet_itself():
    hulls = torch.tensor([[0, 1, 2, 3]]).expand(100, -1)
    answers = hulls.clone()
    answers[0] = torch.tensor([0, 2, 1, 3])
    assert not score_hulls(SQUARE.expand(100, -1, -1), answers, hulls).fails
    answers[1] = torch.tensor([0, 2, 1, 3])
    assert score_hulls(SQUARE.expand(100, -1, -1), answers, hulls).fails


def test_no_simple_polygon_has_no_coverage():
    score = score_hulls(SQUARE[None], torch.tensor([[0, 1, -1]]), torch.tensor([[0, 1, 2, 3]]))
    assert math.isnan(score.coverage)
    assert score.fails


def test_triangles():
    right = torch.tensor([[0, 1, 2, 1, 2, 3]]).expand(4, -1)
    answers = padded([[3, 2, 1, 2, 0, 1], [0, 1, 2, 0, 1, 3], [0, 1, 2, 1], [0, 1, 2, 1, 2, 3, 0]])
    score = score_triangles(answers, right)
    assert score.exact == 1 / 4
    assert score.coverage == pytest.approx((1 + 0.5 + 0.5 + 1) / 4)
    # the same triangle twice is not two
    assert score_triangles(torch.tensor([[0, 1, 2, 2, 1, 0]]), right[:1]).coverage == 0.5


def test_tours():
    points = SQUARE[None, :4].expand(3, -1, -1)
    shortest = torch.tensor([[0, 1, 2, 3]]).expand(3, -1)
    answers = torch.tensor([[0, 1, 2, 3], [0, 2, 1, 3], [0, 1, 1, 3]])
    score = score_tours(points, answers, shortest)
    assert score.valid == pytest.approx(2 / 3)
    assert score.length == pytest.approx((4 + 2 + 2 * math.sqrt(2)) / 2)
    assert score.shortest == pytest.approx(4)
    assert math.isnan(score_tours(points[2:], answers[2:], shortest[2:]).length)


def test_answers_must_be_there():
    with pytest.raises(InvalidInput, match="each sample"):
        score_hulls(SQUARE[None], torch.zeros(0, 3).long(), torch.tensor([[0, 1, 2]]))
    with pytest.raises(InvalidInput, match="no answers"):
        score_tours(SQUARE[None, :0], torch.zeros(0, 0).long(), torch.zeros(0, 0).long())
