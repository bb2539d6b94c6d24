"""docs/overlock.md: its code runs, and its table is what the models are."""

import re
from pathlib import Path

import pytest
import torch

from qna._core.with_losses import WithLosses

PAGE = (Path(__file__).parents[2] / "docs" / "overlock.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    with torch.no_grad():
        for block in blocks:
            exec(compile(block, "overlock.md", "exec"), names)
    return names


def test_the_layers_of_the_page(found):
    assert found["y"].shape == (2, 30, 45, 64)
    assert found["small"].shape == (2, 30, 45, 4, 5, 5)
    assert found["large"].shape == (2, 30, 45, 4, 13, 13)
    torch.testing.assert_close(found["after"], found["before"], rtol=1e-4, atol=1e-5)


def test_the_networks_of_the_page(found):
    assert found["model"].get_classifier().out_features == 10
    assert sum(p.numel() for p in found["model"].parameters()) == 16_453_712 - 990 * 1025
    assert [tuple(m.shape[1:]) for m in found["maps"]] == [
        (56, 23, 33),
        (112, 12, 17),
        (256 + 2 * 84, 6, 9),
        (336 + 84, 3, 5),
    ]
    assert isinstance(found["judged_twice"].train()(torch.randn(2, 3, 32, 32)), WithLosses)


def test_the_counts_of_the_table_are_the_models():
    from qna.models import OVERLOCK, create

    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d,]+) \| ([\d,]+) \|", PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == [name for name in OVERLOCK if "nano" not in name]
    for name, *told in rows:
        forms = [create(name, device="meta", **a) for a in ({}, {"aux_weight": 0.4}, {"deploy": True})]
        assert [f"{sum(p.numel() for p in m.parameters()):,}" for m in forms] == told
