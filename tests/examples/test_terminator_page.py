"""docs/terminator.md: its code runs, and its table is what the models are."""

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "terminator.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, "terminator.md", "exec"), names)
    return names


def test_the_operators_of_the_page(found):
    assert found["y"].shape == found["x"].shape
    assert found["any_shape"](torch.randn(1, 20, 30, 24)).shape == (1, 20, 30, 24)
    x = torch.randn(2, 9, 12, 24)
    torch.testing.assert_close(found["apart"](x)[:1], found["apart"](x[:1]), rtol=0, atol=1e-5)


def test_the_networks_of_the_page(found):
    assert found["logits"].shape == (3, 4)
    assert found["model"].slow_loss_weight == 1
    assert found["optimizer"].param_groups[0]["lr"] == 1.215e-3


def test_the_table_is_what_the_models_are():
    from qna.analysis.cost import total_macs
    from qna.models import TERMINATOR, create

    rows = re.findall(r"^\| `(\w+)` \| (\d+) \| ([\d,]+) \| ([\d,]+) \|$", PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == [name for name in TERMINATOR if "nano" not in name]
    for name, classes, parameters, macs in rows:
        model = create(name, device="meta")
        assert int(classes) == model.num_classes
        assert int(parameters.replace(",", "")) == TERMINATOR[name].parameters
        assert f"{total_macs(model, (1, 3, 32, 32)) / 1e6:,.0f}" == macs
