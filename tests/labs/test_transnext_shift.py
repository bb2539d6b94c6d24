"""The laboratory of aggregated attention: equal costs, what its images are, its rule, what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.data.images.labelled import TensorImages
from qna.labs.transnext_shift.config import TransNeXtShiftConfig
from qna.labs.transnext_shift.networks import AGGREGATED, CONTENDERS, SWIN, build
from qna.labs.transnext_shift.training import framed, scaled
from qna.labs.transnext_shift.verdict import best_of, figures_of, made_up, verdict

CONFIG = TransNeXtShiftConfig()


def test_both_cost_the_same():
    shape = (CONFIG.batch, 1, CONFIG.frame, CONFIG.frame)
    macs = {name: total_macs(build(name, CONFIG, 1), shape) for name in CONTENDERS}
    assert 0.99 < macs[AGGREGATED] / macs[SWIN] <= 1


def test_both_take_every_size_that_is_tried():
    for name in CONTENDERS:
        network = build(name, CONFIG, 1)
        for scale in CONFIG.scales:
            size = round(scale * CONFIG.frame)
            assert network(torch.randn(1, 1, size, size)).shape == (1, 10)


def test_no_shift_suits_one_of_them_by_its_period():
    assert CONFIG.cell == CONFIG.window
    period = CONFIG.cell * CONFIG.patch_size
    assert CONFIG.frame % period == 0
    assert CONFIG.shifts == tuple(range(CONFIG.patch_size, period + 1, CONFIG.patch_size))


def test_objects_are_moved_whole():
    pixels = torch.full((40, 1, 28, 28), 255, dtype=torch.uint8)
    images = TensorImages(pixels, torch.arange(40) % 10)
    places, middle = set(), (CONFIG.frame - CONFIG.object) // 2
    for shift in (0, *CONFIG.shifts):
        moved = framed(images, CONFIG, shift)
        assert moved.pixels.shape == (40, 1, CONFIG.frame, CONFIG.frame)
        assert torch.equal(moved.labels, images.labels)
        for image in moved.pixels[:, 0]:
            rows, columns = (torch.nonzero(image.any(axis)).flatten().tolist() for axis in (1, 0))
            assert len(rows) == len(columns) == CONFIG.object
            assert image.long().sum() == 255 * CONFIG.object**2
            assert {abs(rows[0] - middle), abs(columns[0] - middle)} == {shift}
            places.add((rows[0], columns[0]))
    # the middle, and four corners for each shift
    assert len(places) == 1 + 4 * len(CONFIG.shifts)


def test_whole_images_are_resized():
    images = TensorImages(torch.full((2, 1, 36, 36), 7, dtype=torch.uint8), torch.zeros(2, dtype=torch.int64))
    for scale in CONFIG.scales:
        size = round(36 * scale)
        assert torch.equal(scaled(images, scale).pixels, torch.full((2, 1, size, size), 7, dtype=torch.uint8))


def test_each_gain_must_be_clear():
    assert verdict(made_up(2.0, 2.0)).word == "held"
    for moved, resized in ((2.0, 0.15), (0.15, 2.0)):
        assert verdict(made_up(moved, resized)).word == "direction only"
    for moved, resized in ((2.0, -0.2), (-0.2, 2.0)):
        assert verdict(made_up(moved, resized)).word == "not seen"


def test_what_was_learned_less_well_is_no_robustness():
    assert verdict(made_up(2.0, 2.0, learned=-1.0)).word == "direction only"
    assert verdict(made_up(2.0, 2.0, learned=-0.1)).word == "held"


def test_one_shift_that_suits_the_cells_does_not_decide():
    metrics = made_up(2.0, 2.0)
    for contenders in metrics.values():
        contenders[AGGREGATED]["train top1 shift 4"] -= 5
        contenders[AGGREGATED]["train top1 shift 8"] += 30
    found = verdict(metrics)
    assert found.word == "not seen"
    assert "behind at shift 4 (difference -3.00, standard error 0.10)" in found.figures


def test_a_gain_that_is_paid_for_does_not_count():
    assert verdict(made_up(2.0, 2.0, macs=3.1)).word == "not seen"


def test_the_rate_is_chosen_by_what_was_learned():
    metrics = made_up(2.0, 1.0)
    # at the worse rate objects that are moved happen to be named right
    for case, contenders in metrics.items():
        if case.endswith("lr0.008"):
            contenders[SWIN]["train top1 shift 4"] = 99.0
    assert best_of(metrics, "shift")[SWIN] == {0: 55.0, 1: 55.0}
    assert list(figures_of(metrics, "shift")) == ["4", "8"]
    assert figures_of(metrics, "shift")["8"][SWIN] == {0: 50.0, 1: 50.0}


def test_one_seed_is_no_figure():
    one = {case: at for case, at in made_up(2.0, 1.0).items() if "seed0" in case}
    assert verdict(one).word == "not seen"
    assert verdict({}).word == "not seen"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shifts": (21,)}, r"objects of 18 pixels in the middle of 54 can be moved by 1 to 18, got \(21,\)"),
        ({"shifts": ()}, r"can be moved by 1 to 18, got \(\)"),
        ({"shifts": (3, 4)}, "shifts must be multiples of patch_size=3, got 4"),
        ({"scales": (1.0,)}, r"other than 1, got \(1.0,\)"),
        ({"scales": (0.75,)}, "whole patches of patch_size=3, got 0.75, which gives 40 pixels of 54"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        TransNeXtShiftConfig(**options)
