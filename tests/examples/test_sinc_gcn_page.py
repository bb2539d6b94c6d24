"""docs/sinc-gcn.md: its code runs, and gives what it says."""

import re
import warnings
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "sinc-gcn.md").read_text(encoding="utf-8")
ALONE, WITH_EDGES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_code_that_needs_torch_alone():
    found = {}
    exec(compile(ALONE, "sinc-gcn.md", "exec"), found)
    assert found["y"].shape == (2, 30, 45, 64)
    assert found["heard"].shape == found["pairs_alone"].shape == (8, 50, 16)


def test_the_code_on_lists_of_edges():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pytest.importorskip("torch_geometric", reason="qna[graph] brings it")
    found = {}
    exec(compile(WITH_EDGES, "sinc-gcn.md", "exec"), found)
    assert found["out"].shape == found["maxima"].shape == (100, 16)
