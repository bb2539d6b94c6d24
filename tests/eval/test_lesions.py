"""Scores of volumes: Dice by hand, recall by size, and sums that do not depend on who counted."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from qna.eval.lesions import EDGES, VolumeTally, count_lesions, usable_volume

pytest.importorskip("monai", reason="qna[volumes] brings it")


def logits_of(classes, count):
    """Logits that say `classes` (D, H, W), sure but not surely."""
    return torch.nn.functional.one_hot(classes, count).movedim(-1, 0).float() * 4


def boxes(*corners, shape=(12, 12, 12), number=1):
    found = torch.zeros(shape, dtype=torch.int64)
    for low, high in corners:
        found[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = number
    return found


def tallied(*pairs, classes=2, voxel_ml=0.1):
    tally = VolumeTally(classes)
    for index, (given, truth) in enumerate(pairs):
        one = torch.tensor([voxel_ml], dtype=torch.float64)
        tally.add(logits_of(given, classes)[None], truth[None], torch.tensor([index]), one)
    return tally


def test_dice_and_loss_by_hand():
    truth, given = boxes(((0, 0, 0), (2, 2, 2))), boxes(((1, 0, 0), (3, 2, 2)))
    scores = tallied((given, truth)).scores()
    # 8 and 8 voxels, 4 of them both
    assert scores.dice == (0.5,)
    wrong, right = math.log(1 + math.exp(4)), math.log(1 + math.exp(-4))
    assert scores.loss == pytest.approx((8 * wrong + (12**3 - 8) * right) / 12**3, rel=1e-5)
    assert scores.mean_dice == 0.5


def test_limits():
    truth = boxes(((0, 0, 0), (2, 2, 2)))
    empty = torch.zeros_like(truth)
    assert tallied((truth, truth)).scores().dice == (1.0,)
    assert tallied((empty, truth)).scores().dice == (0.0,)
    # a class that is nowhere has no Dice, and what is said of it is found for nothing
    nothing = tallied((truth, empty)).scores()
    assert nothing.dice == (None,)
    assert (nothing.false_finds, nothing.recall, nothing.mean_dice) == (1, None, 0)
    # a mean over the volumes that have it
    both = tallied((truth, truth), (empty, empty), (empty, truth)).scores()
    assert both.dice == (0.5,)
    assert both.volumes == 3


def test_recall_by_size():
    # 1, 8, 27 and 120 voxels of 0.1 ml: below 0.3, below 1, below 3, from 10 on
    corners = [
        ((0, 0, 0), (1, 1, 1)),
        ((4, 0, 0), (6, 2, 2)),
        ((0, 4, 0), (3, 7, 3)),
        ((7, 4, 4), (12, 10, 8)),
    ]
    truth = boxes(*corners)
    # the second is missed, of the third 2 voxels of 27 are too few, of the last 12 of 120 are enough
    given = boxes(corners[0], ((0, 4, 0), (1, 5, 2)), ((7, 4, 4), (8, 7, 8)), ((11, 0, 0), (12, 1, 1)))
    scores = tallied((given, truth)).scores()
    assert [(size.there, size.found) for size in scores.sizes] == [(1, 1), (1, 0), (1, 0), (0, 0), (1, 1)]
    assert scores.recall == 0.5
    assert scores.false_finds == 1
    assert [size.name for size in scores.sizes][0::4] == ["0 to 0.3 ml", "10 ml and more"]
    assert scores.sizes[3].recall is None


def test_an_edge_belongs_to_the_larger_size():
    for edge, number in zip(EDGES, range(1, len(EDGES) + 1), strict=True):
        truth = boxes(((0, 0, 0), (1, 1, 1)))
        scores = tallied((truth, truth), voxel_ml=edge).scores()
        assert scores.sizes[number].there == 1


def test_corners_hang_together_and_classes_do_not():
    truth = boxes(((0, 0, 0), (2, 2, 2)), ((2, 2, 2), (4, 4, 4)))
    assert sum(count_lesions(truth.numpy(), truth.numpy(), 2, 0.1)[:-1:2]) == 1
    other = truth.clone()
    other[2:] *= 2
    assert sum(count_lesions(other.numpy(), other.numpy(), 3, 0.1)[:-1:2]) == 2
    # the wrong class is no find
    assert count_lesions(3 - other.numpy() * (other.numpy() > 0), other.numpy(), 3, 0.1)[-1] > 0


def test_it_counts_as_a_loop_over_lesions_does():
    g = np.random.default_rng(0)
    truth, given = ((g.random((14, 15, 16)) > 0.85) * g.integers(1, 3, (14, 15, 16)) for _ in range(2))
    numbers, lost = np.zeros((5, 2), dtype=int), 0
    for number in (1, 2):
        pieces, count = ndimage.label(truth == number, structure=np.ones((3, 3, 3)))
        for piece in range(1, count + 1):
            inside = pieces == piece
            row = sum(inside.sum() * 0.05 >= edge for edge in EDGES)
            numbers[row] += 1, (given[inside] == number).mean() >= 0.1
        pieces, count = ndimage.label(given == number, structure=np.ones((3, 3, 3)))
        lost += sum(not (truth[pieces == piece] == number).any() for piece in range(1, count + 1))
    assert count_lesions(given, truth, 3, 0.05) == (*numbers.reshape(-1).tolist(), lost)


def test_several_processes_count_as_one():
    g = torch.Generator().manual_seed(0)
    pairs = [[torch.randint(0, 3, (6, 5, 4), generator=g) for _ in range(2)] for _ in range(5)]
    whole = tallied(*pairs, classes=3)
    parts = [VolumeTally(3), VolumeTally(3)]
    for row in whole.counted:
        parts[row[0] % 2].counted.append(row)
    parts[0].reduce(lambda own: own + parts[1].counted)
    assert parts[0].scores() == whole.scores()


def test_nothing_was_judged():
    scores = VolumeTally(3).scores()
    assert (scores.volumes, scores.dice, scores.mean_dice, scores.recall) == (0, (None, None), 0, None)


def test_numbers_that_are_none_are_seen():
    logits = torch.zeros(1, 2, 3, 4, 5)
    assert usable_volume(logits)
    for value in (math.nan, math.inf):
        logits[0, 1, 2, 3, 4] = value
        assert not usable_volume(logits)
