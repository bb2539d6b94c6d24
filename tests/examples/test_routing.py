"""examples/routing.py and the code on docs/routing.md run as they say."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "routing.md").read_text(encoding="utf-8")


def test_spots_that_look_alike_choose_each_other():
    done = subprocess.run(
        [sys.executable, ROOT / "examples" / "routing.py", "--side", "30"],
        capture_output=True,
        text=True,
        check=True,
    )
    *drawn, told = done.stdout.splitlines()
    found = [
        (row, column)
        for row, line in enumerate(drawn)
        for column, letter in enumerate(line.split())
        if letter == "#"
    ]
    assert len(drawn) == 7
    assert found == [(1, 1), (1, 5), (5, 3)]
    routed, whole = map(
        float, re.fullmatch(r"(\S+) million multiply-adds, to all regions (\S+)", told).groups()
    )
    assert routed < whole / 5


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_layer_of_the_page():
    found = {}
    exec(blocks()[0], found)
    told = dict(re.findall(r"^(\w+) = .*# (\([\d, ]+\))", blocks()[0], re.MULTILINE))
    assert told.keys() == {"y", "routes", "shown", "received"}
    for name, shape in told.items():
        assert tuple(found[name].shape) == tuple(map(int, shape.strip("()").split(",")))


def test_the_networks_of_the_page():
    found = {}
    exec(blocks()[1], found)
    sizes = [(96, 23, 33), (192, 12, 17), (384, 6, 9), (768, 3, 5)]
    assert [tuple(m.shape[1:]) for m in found["maps"]] == sizes
    assert len(found["own"].stages[2]) == 5


def test_the_page_names_every_size_and_its_parameters():
    from qna.models import BIFORMER_SIZES

    for name, variant in BIFORMER_SIZES.items():
        assert f"`{name}`" in PAGE
        assert "nano" in name or f"| {variant.parameters:,} |" in PAGE
