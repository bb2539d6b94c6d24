"""examples/huge_image.py runs as its page says, at a small size."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "huge_image.py"


@pytest.mark.slow
def test_runs_at_a_small_size(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["huge_image.py", "--side", "203", "--tile", "64"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    told = capsys.readouterr().out
    assert "qna_vit_nano_16 on 203 x 203 pixels: 16 tiles" in told
    assert "largest difference to the corner in one piece: " in told
