"""Matrices share a scale within their row, by the name before the last word."""

from qna.plots import plot_matrices


def test_matrices(tmp_path):
    path = tmp_path / "a.png"
    rows = [
        ("first, of two", [("KQ 1", [[1.0, -2.0]]), ("KQ 2", [[0.5, 0.0]]), ("OV 1", [[40.0]])]),
        ("second", [("KQ 1", [[0.0]])]),
    ]
    plot_matrices(path, rows, title="Heads", note="here")
    assert path.read_bytes().startswith(b"\x89PNG")
    drawn = path.with_suffix(".svg").read_text()
    for text in ("KQ 1, ±2", "KQ 2, ±2", "OV 1, ±40"):
        assert f"<!-- {text} -->" in drawn
