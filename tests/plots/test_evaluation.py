"""Pictures of evaluations and explanations: PNG files of the promised size; a person looked at them."""

import numpy as np
import pytest
from matplotlib.image import imread

from qna.plots import HeatMap, plot_calibration, plot_explanation, plot_robustness


@pytest.mark.parametrize("count", [1, 3, 6])
def test_calibration(tmp_path, count):
    rows = [
        {"low": 0.0, "high": 0.5, "images": 0, "confidence": 0, "accuracy": 0},
        {"low": 0.5, "high": 1.0, "images": 9, "confidence": 0.8, "accuracy": 0.7},
    ]
    names = [f"a/rather/long/name/of/a/run/number-{i}" for i in range(count)]
    plot_calibration(tmp_path / "a.png", dict.fromkeys(names, rows), dict.fromkeys(names, 0.1))
    height, width, _ = imread(tmp_path / "a.png").shape
    # panels of 3.3 by 3.5 inches, four to a row
    columns, rows = min(4, count), -(-count // 4)
    assert abs(width / 130 - 3.3 * columns) < 1
    assert abs(height / 130 - 3.5 * rows) < 1


def test_robustness(tmp_path):
    lines = {"first": [(0, 0.9), (1, 0.8)], "second": [(0, 0.7), (1, 0.1)]}
    plot_robustness(tmp_path / "a.png", {"noise": lines, "blur": lines}, title="t")
    assert imread(tmp_path / "a.png").shape[1] > 500


def heat(values, **options):
    return HeatMap("a map", np.asarray(values), options.pop("kind", "share"), **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_explanation_in_two_rows_and_in_one(tmp_path, channels):
    rng = np.random.default_rng(0)
    photo = rng.random((40, 60, channels))
    strength = heat(rng.random((40, 60)), kind="strength", squares=(20, 90), centre=(20.5, 30.5))
    maps, layers = [heat(rng.random((4, 6)) + 0.5), strength], [heat(np.ones((2, 3)))] * 4
    options = {
        "title": "t",
        "answers": [("cat", 0.9), ("a dog of a rather long name, indeed", 0.1)],
        "notes": ["n"],
    }
    plot_explanation(tmp_path / "two.png", photo, maps, layers, **options)
    plot_explanation(tmp_path / "one.png", photo, maps, layers[:1], **options)
    two, one = imread(tmp_path / "two.png"), imread(tmp_path / "one.png")
    assert two.shape[0] > 1.5 * one.shape[0]
    assert one.shape[1] > two.shape[1]


def test_an_explanation_shows_the_map_where_it_is(tmp_path):
    """A map that is high in its left half alone makes that half of its panel lighter."""
    values = np.full((8, 8), 0.5)
    values[:, :4] = 2.0
    photo = np.full((64, 64, 3), 0.5)
    plot_explanation(tmp_path / "a.png", photo, [heat(values)], [])
    picture = imread(tmp_path / "a.png")[..., :3].mean(-1)
    # the second panel: 0.15 + 2.8 + 0.3 inches from the left, 0.45 + 0.3 from above, 130 pixels to the inch
    left, top, side = (int(130 * inches) for inches in (3.25, 0.75, 2.8))
    panel = picture[top : top + side, left : left + side]
    assert panel[:, : side // 3].mean() > panel[:, -side // 3 :].mean() + 0.3


@pytest.mark.parametrize(
    ("centre", "side", "expected"),
    [
        ((10, 10), 8, (6, 6, 8, 8)),
        ((10, 10), 14, (2, 2, 14, 14)),  # moved up and to the left by one
        ((2, 2), 9, (0, 0, 9, 9)),
        ((10, 10), 16, (0, 0, 16, 16)),
    ],
)
def test_squares_lie_in_the_photo(tmp_path, drawn, centre, side, expected):
    """As (top, left, height, width)."""
    strength = heat(np.ones((16, 16)), kind="strength", squares=(side,), centre=centre)
    plot_explanation(tmp_path / "a.png", np.zeros((16, 16, 1)), [strength], [])
    (square,) = [
        p for axes in drawn[0].axes for p in axes.patches if p.get_linestyle() != "-" and not p.get_fill()
    ]
    left, top = square.get_xy()
    # pixel 0 is drawn from -0.5 to 0.5
    assert (top + 0.5, left + 0.5, square.get_height(), square.get_width()) == expected
