"""examples/segmentation.py runs as its page says, at a small size."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

import qna.models  # noqa: F401 - before what imports timm

pytest.importorskip("segmentation_models_pytorch", reason="qna[dense] brings it")

EXAMPLE = Path(__file__).parents[2] / "examples" / "segmentation.py"


@pytest.mark.slow
def test_it_trains_and_paints_what_it_sees(tmp_path, monkeypatch, capsys):
    small = ("--size", "32", "--images", "8", "--epochs", "1", "--out", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["segmentation.py", *small])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    told = capsys.readouterr().out
    assert "mean IoU 0." in told
    assert "found.png shows" in told
    with Image.open(tmp_path / "found.png") as picture:
        assert picture.size == (64, 32)
