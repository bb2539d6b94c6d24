"""Benchmark pictures are written as PNG and SVG, and hold what they were given."""

import pytest

from qna.plots import plot_bars, plot_dots, plot_lines, plot_points, plot_table
from qna.plots.bench import _front, _plain, _spread

LINES = [
    {"name": "qna", "x": [3, 5], "y": [1.0, 2.0], "low": [0.9, 1.9], "high": [1.1, 2.1]},
    {"name": "other", "x": [3, 5], "y": [1.0, 2.0]},
    {"name": "floor", "x": [3, 5], "y": [0.1, 0.1], "floor": True},
]


def check(path, *texts):
    assert path.read_bytes().startswith(b"\x89PNG")
    drawn = path.with_suffix(".svg").read_text()
    assert drawn.startswith("<?xml")
    for text in texts:  # matplotlib writes each text as a comment beside its outlines
        assert f"<!-- {text} -->" in drawn
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize("log_x", [False, True])
def test_lines(tmp_path, log_x):
    path = tmp_path / "a.png"
    panels = [{"title": "map A", "lines": LINES}, {"title": "map B", "lines": LINES[:1]}]
    plot_lines(path, panels, title="Time", note="here", xlabel="window", ylabel="ms", log_x=log_x)
    check(path, "map A", "map B", "qna", "other", "floor", "window", "ms", "here")


def test_bars(tmp_path):
    bars = [{"name": "net", "value": 12.34, "low": 12.0, "high": 13.0}]
    path = tmp_path / "a.png"
    plot_bars(path, [{"title": "batch 1", "bars": bars}], title="Models", note="here", xlabel="images/s")
    check(path, "net", "12.3", "batch 1")


def test_dots(tmp_path):
    path = tmp_path / "a.png"
    dots = [{"name": "first", "values": [60.0, 61.0]}, {"name": "second", "values": [55.25]}]
    panels = [{"title": "data A", "dots": dots}, {"title": "data B", "dots": dots[:1]}]
    plot_dots(path, panels, title="Accuracy", note="here", xlabel="right, %")
    check(path, "first", "second", "60.5", "55.2", "data A", "data B", "right, %")


def test_points(tmp_path):
    path = tmp_path / "a.png"
    points = [{"name": "cheap", "x": 2.0, "y": 50.0}, {"name": "poor", "x": 5.0, "y": 40.0}]
    points += [{"name": "best", "x": 90.0, "y": 60.0}]
    panels = [{"title": "data A", "points": points}]
    plot_points(path, panels, title="Mixers", note="here", xlabel="ms", ylabel="right, %")
    check(path, "cheap", "poor", "best", "data A", "ms", "right, %")
    assert [p["name"] for p in _front(points)] == ["cheap", "best"]


def test_table(tmp_path):
    path = tmp_path / "a.png"
    plot_table(path, ("what", "GMAC"), [("qna k3", "0.27")], title="Cost", note="counted")
    check(path, "what", "GMAC", "qna k3", "0.27")


def test_names_at_one_height_are_drawn_apart():
    assert _spread([0.5, 0.5, 0.5], gap=0.1) == pytest.approx([0.4, 0.5, 0.6])
    assert _spread([0.1, 0.5, 0.52, 0.9], gap=0.1) == pytest.approx([0.1, 0.46, 0.56, 0.9])


def test_numbers_have_no_exponent():
    assert [_plain(v) for v in (0.25, 3, 256, 1024, 65536, 2.5e6)] == [
        "0.25",
        "3",
        "256",
        "1024",
        "65.5k",
        "2.5M",
    ]
