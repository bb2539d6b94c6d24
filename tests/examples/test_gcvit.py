"""examples/global_context.py and the code on docs/gcvit.md run as they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "gcvit.md").read_text(encoding="utf-8")


def test_a_spot_reaches_every_window_by_the_query_alone():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "global_context.py", "--windows", "3"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == [
        *("WindowAttention2d", "# . .", ". . .", ". . ."),
        *("GlobalContextAttention2d", "# # #", "# # #", "# # #"),
    ]


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("number", [0, 1])
def test_shapes_of_the_page(number):
    found = {}
    exec(blocks()[number], found)
    told = dict(re.findall(r"^(\w+) = .*# (\([\d, ]+\))", blocks()[number], re.MULTILINE))
    assert len(told) == (4 if number == 0 else 2)
    for name, shape in told.items():
        assert tuple(found[name].shape) == tuple(map(int, shape.strip("()").split(",")))


def test_the_page_names_every_size_its_parameters_and_multiply_adds():
    from qna.models import GCVIT

    for name, variant in GCVIT.items():
        assert f"`{name}`" in PAGE
        assert "nano" in name or f"| {variant.parameters:,} |" in PAGE
