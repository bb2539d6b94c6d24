"""examples/detection.py runs as its page says, at a small size."""

import runpy
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers", reason="transformers is not installed")

EXAMPLE = Path(__file__).parents[2] / "examples" / "detection.py"


@pytest.mark.slow
def test_it_trains_and_draws_what_it_finds(tmp_path, monkeypatch, capsys):
    small = ("--size", "32", "--images", "16", "--epochs", "1", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["detection.py", *small])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    told = capsys.readouterr().out
    assert "mean average precision 0." in told
    assert "found.png shows" in told
    assert (tmp_path / "found.png").read_bytes().startswith(b"\x89PNG")
