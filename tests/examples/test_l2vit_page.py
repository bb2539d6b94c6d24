"""docs/l2vit.md: its code runs, and its table is what the models are."""

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "l2vit.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "l2vit.md", "exec"), names)
    return names


def test_the_layers_of_the_page(found):
    assert found["y"].shape == (2, 30, 45, 64)
    assert found["shares"].shape == (2, 6, 8, 2, 6, 8)
    torch.testing.assert_close(found["shares"].sum((4, 5)), torch.ones(2, 6, 8, 2))
    assert (found["attention"].clamp, found["plain"].clamp) == (100, 0)


def test_the_networks_of_the_page(found):
    sizes = [(96, 23, 33), (192, 12, 17), (384, 6, 9), (768, 3, 5)]
    assert [tuple(m.shape[1:]) for m in found["maps"]] == sizes
    assert found["model"].get_classifier().out_features == 10
    assert isinstance(found["without"].stages[0][1].near, torch.nn.Identity)


def test_the_table_is_what_the_models_are():
    from qna.analysis.cost import total_macs
    from qna.models import L2VIT, create

    rows = re.findall(r"^\| `(\w+)`[^|]*\| ([\d,]+) \| ([\d.]+) \| (\d+) \|", PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == [name for name in L2VIT if "nano" not in name]
    for name, parameters, macs, side in rows:
        assert int(parameters.replace(",", "")) == L2VIT[name].parameters
        assert int(side) == L2VIT[name].image_size
        counted = total_macs(create(name, device="meta"), (1, 3, int(side), int(side)))
        assert f"{counted / 1e9:.2f}" == macs
