"""examples/neighborhood.py and the code on docs/neighborhood.md run as they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "neighborhood.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_small_network_learns_digits():
    example = ROOT / "examples" / "neighborhood.py"
    done = subprocess.run(
        [sys.executable, example, "--epochs", "2"], capture_output=True, text=True, check=True
    )
    told = re.fullmatch(r"nat_nano_16: (\d+\.\d) % of 360 held-out digits right\n", done.stdout)
    assert told is not None, done.stdout
    # one of ten without learning
    assert float(told[1]) > 50


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_layers_of_the_page():
    found = {}
    exec(blocks()[0], found)
    assert found["y"].shape == (2, 20, 33, 64)
    assert found["z"].shape == (1, 8, 14, 14, 64)


def test_the_networks_of_the_page():
    found = {}
    exec(blocks()[1], found)
    assert [tuple(m.shape[1:]) for m in found["maps"]] == [
        (96, 23, 33),
        (192, 12, 17),
        (384, 6, 9),
        (768, 3, 5),
    ]
    assert len(found["own"].stages[2]) == 5


def test_the_page_names_every_size():
    from qna.models import DINAT_SIZES, NAT_SIZES

    named = set(re.findall(r"`(\w+)`", PAGE))
    for name in (*NAT_SIZES, *DINAT_SIZES):
        family = "dinat_s" if name.startswith("dinat_s") and name != "dinat_small" else name.partition("_")[0]
        assert name in named or name.removeprefix(family) in named
