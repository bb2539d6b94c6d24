"""Polygons over their points, beside curves; any of it may be missing."""

from qna.plots import DrawnPolygon, plot_polygons

POINTS = [(0.1, 0.1), (0.9, 0.2), (0.4, 0.8)]


def test_polygons(tmp_path):
    path = tmp_path / "a.png"
    rows = [
        [DrawnPolygon("first $1", POINTS, POINTS, POINTS), DrawnPolygon("second", POINTS, POINTS, [])],
        [],
    ]
    curves = {"one": ([1.0, 2.0], [3.0, 4.0])}
    plot_polygons(path, rows, curves, title="Hulls", note="here", xlabel="steps", ylabel="exact")
    assert path.read_bytes().startswith(b"\x89PNG")
    drawn = path.with_suffix(".svg").read_text()
    for text in ("first $1", "second", "one", "steps"):
        assert f"<!-- {text} -->" in drawn


def test_nothing_to_draw(tmp_path):
    plot_polygons(tmp_path / "a.png", [], {}, title="", note="", xlabel="", ylabel="")
    assert (tmp_path / "a.png").exists()
