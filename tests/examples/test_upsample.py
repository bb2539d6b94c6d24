"""examples/upsample.py runs as it says."""

import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "upsample.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [["--epochs", "3"], pytest.param(["--photographs", "--epochs", "10"], marks=pytest.mark.long)],
    ids=" ".join,
)
def test_learned_queries_soon_restore_more_than_bilinear_up_sampling(options, monkeypatch, capsys):
    if "--photographs" in options:
        pytest.importorskip("skimage", reason="qna[dense] brings it")
    monkeypatch.setattr(sys, "argv", ["upsample.py", *options])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    told = re.fullmatch(r"bilinear (\d+\.\d\d) dB, learned queries (\d+\.\d\d) dB\n", capsys.readouterr().out)
    assert told is not None
    assert float(told[2]) > float(told[1])
