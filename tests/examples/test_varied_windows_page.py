"""docs/varied-windows.md: its code runs, and its table is what the models are."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "varied-windows.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, "varied-windows.md", "exec"), names)
    return names


def test_the_layers_of_the_page(found):
    assert found["y"].shape == (2, 30, 45, 64)
    where = found["where"]
    assert where.shape == (2, 4, 5, 7, 7, 7, 2)
    # windows that have not moved
    assert where[0, 0, 2, 3, 1, 4].tolist() == [15, 25]


def test_the_networks_of_the_page(found):
    assert found["model"].get_classifier().out_features == 10
    assert not found["model"].stages[0][0].mixer.scales.weight.any()
    assert [tuple(m.shape[1:]) for m in found["maps"]] == [
        (64, 23, 33),
        (128, 12, 17),
        (256, 6, 9),
        (512, 3, 5),
    ]


@pytest.mark.long
def test_the_table_is_what_the_models_are():
    from qna.analysis.cost import total_macs
    from qna.models import SWIN_VSA, VITAEV2_VSA, create

    rows = re.findall(r"^\| `(\w+)` \| ([\d,]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    every = {**SWIN_VSA, **VITAEV2_VSA}
    assert [name for name, *_ in rows] == [name for name in every if "nano" not in name]
    for name, parameters, macs in rows:
        assert int(parameters.replace(",", "")) == every[name].parameters
        counted = total_macs(create(name, device="meta"), (1, 3, 224, 224))
        assert f"{counted / 1e9:.2f}" == macs
