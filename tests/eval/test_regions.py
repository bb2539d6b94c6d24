"""Intersection over union of regions and outlines, against counts by hand and the published procedure."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from qna.eval.regions import RegionTally, outline

IGNORE = 255


def logits_for(guess, classes):
    """Logits whose largest is at `guess`."""
    return 4.0 * F.one_hot(guess, classes).movedim(-1, 1).float()


def example(seed=0, classes=4, size=(2, 23, 31), ignored=True):
    g = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, classes, (size[0], 1, 5, 6), generator=g).float()
    truth = F.interpolate(coarse, size[1:]).long()[:, 0]
    noise = torch.rand(size, generator=g)
    guess = torch.where(noise < 0.2, torch.randint(0, classes, size, generator=g), truth)
    if ignored:
        truth[torch.rand(size, generator=g) < 0.1] = IGNORE
    return truth, guess


def test_regions_against_sets_of_pixels():
    truth, guess = example()
    tally = RegionTally(4, IGNORE)
    tally.add(logits_for(guess, 4), truth)
    scores = tally.scores()
    counts = truth != IGNORE
    for n in range(4):
        a, b = (truth == n) & counts, (guess == n) & counts
        assert scores.iou[n] == pytest.approx(int((a & b).sum()) / int((a | b).sum()))
    assert scores.miou == pytest.approx(sum(scores.iou) / 4)
    assert scores.accuracy == pytest.approx(float((truth == guess)[counts].double().mean()))
    assert scores.pixels == int(counts.sum())
    assert scores.images == 2
    losses = F.cross_entropy(logits_for(guess, 4), truth, ignore_index=IGNORE)
    assert scores.loss == pytest.approx(float(losses), rel=1e-6)


def eroded(mask, times):
    """The authors' procedure: a frame of zeros, then `times` erosions by 3 x 3."""
    grown = np.pad(mask, 1)
    for _ in range(times):
        inside = np.pad(grown, 1, constant_values=True)
        grown = np.min(
            [
                inside[1 + i : inside.shape[0] - 1 + i, 1 + j : inside.shape[1] - 1 + j]
                for i in (-1, 0, 1)
                for j in (-1, 0, 1)
            ],
            axis=0,
        )
    return grown[1:-1, 1:-1]


@pytest.mark.parametrize("size", [(23, 31), (120, 90), (1, 1), (3, 200)])
def test_outlines_against_the_published_procedure(size):
    truth, guess = example(1, size=(2, *size))
    truth[:, : size[0] // 3] = 2  # an area that is large beside the outline
    tally = RegionTally(4, IGNORE)
    tally.add(logits_for(guess, 4), truth)
    times = max(1, round(0.02 * math.hypot(*size)))
    counted = truth != IGNORE
    for n in range(4):
        both = either = 0
        for image in range(2):
            edges = []
            for labels in (truth, guess):
                mask = ((labels == n) & counted)[image].numpy()
                edges.append(mask & ~eroded(mask, times))
            both += int((edges[0] & edges[1]).sum())
            either += int((edges[0] | edges[1]).sum())
        assert tally.scores().outlines[n] == (both, either)


def test_the_outline_of_a_square():
    labels = torch.zeros(1, 50, 50, dtype=torch.int64)
    labels[0, 10:30, 10:30] = 1
    found = outline(labels)[0]  # d = round(0.02 * 70.7) = 1
    assert int((found & (labels[0] == 1)).sum()) == 20**2 - 18**2
    # of the background: one pixel around the square and one along the edge
    assert int((found & (labels[0] == 0)).sum()) == (22**2 - 20**2) + (50**2 - 48**2)


def test_batches_and_processes_do_not_matter():
    pairs = [example(seed, size=(3, 20, 20 + seed)) for seed in range(3)]
    whole, parts = RegionTally(4, IGNORE), [RegionTally(4, IGNORE) for _ in range(2)]
    for place, (truth, guess) in enumerate(pairs):
        whole.add(logits_for(guess, 4), truth)
        for image in range(3):
            parts[(place + image) % 2].add(logits_for(guess, 4)[image : image + 1], truth[image : image + 1])
    for name in ("confusion", "outlines"):
        assert torch.equal(getattr(whole, name), getattr(parts[0], name) + getattr(parts[1], name))
    # sums of 3,000 numbers in double precision
    assert float(whole.loss) == pytest.approx(float(parts[0].loss + parts[1].loss), rel=1e-12)


def test_perfect_and_absent():
    truth, _ = example(2, classes=3)
    tally = RegionTally(5, IGNORE)
    tally.add(logits_for(truth.masked_fill(truth == IGNORE, 0), 5), truth)
    scores = tally.scores()
    assert scores.iou == scores.boundary_iou == (1.0, 1.0, 1.0, None, None)
    assert scores.miou == scores.boundary_miou == scores.accuracy == 1.0
    nothing = RegionTally(2, IGNORE).scores()
    assert (nothing.images, nothing.miou, nothing.iou) == (0, 0.0, (None, None))


def test_a_shift_costs_the_outline_more_than_the_region():
    truth = torch.zeros(1, 100, 100, dtype=torch.int64)
    truth[0, 20:80, 20:80] = 1
    tally = RegionTally(2, IGNORE)
    tally.add(logits_for(truth.roll(2, 2), 2), truth)
    scores = tally.scores()
    assert scores.iou[1] == pytest.approx(58 / 62)
    assert scores.boundary_iou[1] < 0.75 * scores.iou[1]
