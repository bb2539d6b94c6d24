"""examples/transnext.py and the code on docs/transnext.md run as they say."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "transnext.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_a_small_network_learns_digits_and_answers_at_other_sizes():
    example = ROOT / "examples" / "transnext.py"
    done = subprocess.run(
        [sys.executable, example, "--epochs", "2", "--sizes", "16", "21"],
        capture_output=True,
        text=True,
        check=True,
    )
    told = re.fullmatch(
        r"16 x 16: (\d+\.\d) % of 360 held-out digits right\n21 x 21: (\d+\.\d) % of 360 .* right\n",
        done.stdout,
    )
    assert told is not None, done.stdout
    # one of ten without learning
    assert float(told[1]) > 80


def blocks():
    return re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


def test_the_layer_of_the_page():
    found = {}
    exec(blocks()[0], found)
    assert found["y"].shape == (2, 20, 33, 48)
    assert found["shares"].shape == (2, 20, 33, 2, 9 + 5 * 8)


def test_the_networks_of_the_page():
    found = {}
    exec(blocks()[1], found)
    sizes = [tuple(m.shape[1:]) for m in found["maps"]]
    assert sizes == [(48, 23, 33), (96, 12, 17), (192, 6, 9), (384, 3, 5)]
    assert found["linear"].stages[0][0].mixer.pool_size == (3, 3)


def test_the_page_tells_the_counts():
    from qna.models import TRANSNEXT

    for name, variant in TRANSNEXT.items():
        assert f"`{name}`" in PAGE
        if name != "transnext_nano_16":
            assert f"| `{name}` | {variant.parameters:,} |" in PAGE


def test_the_routed_network_of_the_page():
    from qna.models import MOH_VIT

    found = {}
    exec(blocks()[2], found)
    assert found["logits"].shape == (2, 10)
    assert found["losses"]["balance"] > 0
    for name, variant in MOH_VIT.items():
        if name != "moh_vit_nano_16":
            told = rf"\| `{name}` \| {variant.parameters:,} \| [\d,]+ \| {100 * variant.active():.1f} % \|"
            assert re.search(told, PAGE)
