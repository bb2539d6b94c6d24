"""Mean average precision on cases that can be counted by hand, in any batches and processes."""

from types import SimpleNamespace

import pytest
import torch

from qna.data.boxes import Boxes
from qna.eval.boxes import BoxTally

pytest.importorskip("pycocotools", reason="pycocotools is not installed")

A, B, C = (0.0, 0, 50, 50), (60.0, 60, 110, 110), (120.0, 0, 170, 50)


def truth(*rows, crowd=()):
    return Boxes.of([r[0] for r in rows], [r[1] for r in rows], [i in crowd for i in range(len(rows))])


def answer(*rows):
    """(score, label, corners), the surest first."""
    return (
        torch.tensor([float(r[0]) for r in rows]),
        torch.tensor([r[1] for r in rows]).long(),
        torch.tensor([r[2] for r in rows]).view(-1, 4),
    )


def scores(*images, classes=2):
    tally = BoxTally(classes)
    for index, (found, there) in enumerate(images):
        tally.add([found], 1.0 + index, SimpleNamespace(indices=torch.tensor([index]), truth=[there]))
    return tally.scores()


def test_all_found_and_nothing_found():
    there = truth((A, 0), (B, 1))
    whole = scores((answer((0.9, 0, A), (0.8, 1, B)), there))
    assert (whole.map, whole.map_50, whole.map_75, whole.recall) == (1, 1, 1, 1)
    assert whole.of_class == (1, 1)
    assert (whole.map_small, whole.map_medium, whole.map_large) == (None, 1, None)
    nothing = scores((answer(), there))
    assert (nothing.map, nothing.recall, nothing.of_class) == (0, 0, (0, 0))


def test_precision_is_interpolated_at_101_recalls():
    # one of two boxes: precision 1 at the recalls 0, 0.01 .. 0.5, and 0 beyond
    half = scores((answer((0.9, 0, A)), truth((A, 0), (B, 0))), classes=1)
    assert half.map == pytest.approx(51 / 101)
    # a surer wrong answer halves the precision wherever something is found
    wrong = scores((answer((0.95, 0, C), (0.9, 0, A)), truth((A, 0))), classes=1)
    assert wrong.map == pytest.approx(0.5)


def test_an_overlap_counts_up_to_its_own_threshold():
    # intersection 41 x 50 of a union of 50 x 50: 0.82, which passes 0.5, 0.55 .. 0.8, 7 of 10 thresholds
    shifted = scores((answer((0.9, 0, (0.0, 0, 41, 50))), truth((A, 0))), classes=1)
    assert shifted.map == pytest.approx(0.7)
    assert (shifted.map_50, shifted.map_75) == (1, 1)


def test_what_is_found_in_a_crowd_counts_neither_way():
    group, inside = (60.0, 60, 160, 160), (100.0, 100, 140, 140)
    found = answer((0.95, 0, B), (0.93, 0, inside), (0.9, 0, A))
    # two surer answers that find nothing leave a precision of a third
    assert scores((found, truth((A, 0))), classes=1).map == pytest.approx(1 / 3)
    assert scores((found, truth((A, 0), (group, 0), crowd=(1,))), classes=1).map == pytest.approx(1.0)


def test_a_class_without_a_box_has_no_figure():
    only = scores((answer((0.9, 0, A), (0.8, 1, B)), truth((A, 0))), classes=3)
    assert only.of_class == (1, None, None)
    assert only.map == 1


def test_processes_and_order_change_nothing():
    g = torch.Generator().manual_seed(0)

    def random(index):
        corners = torch.rand(6, 2, generator=g) * 100
        corners = torch.cat([corners, corners + 20 + 40 * torch.rand(6, 2, generator=g)], 1)
        found = (
            torch.rand(6, generator=g).sort(descending=True).values,
            torch.randint(0, 2, (6,), generator=g),
            corners,
        )
        noise = corners[:4] + torch.randn(4, 4, generator=g) * 3
        return found, Boxes(noise, found[1][:4], torch.zeros(4, dtype=torch.bool))

    images = [random(i) for i in range(7)]
    whole = scores(*images)
    assert 0 < whole.map < 1
    tallies = [BoxTally(2), BoxTally(2)]
    for index in reversed(range(7)):
        found, there = images[index]
        batch = SimpleNamespace(indices=torch.tensor([index]), truth=[there])
        tallies[index % 2].add([found], 1.0 + index, batch)
    rows = tallies[0].rows + tallies[1].rows
    for tally in tallies:
        tally.reduce(lambda tensor: tensor, lambda _: list(rows))
        assert tally.scores() == whole
    assert whole.loss == pytest.approx(4)


def test_nothing_judged_is_no_error():
    assert (BoxTally(2).scores().images, BoxTally(2).scores().of_class) == (0, (None, None))
