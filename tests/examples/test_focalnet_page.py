"""docs/focalnet.md: its code runs, and its table is what the models are."""

import re
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "focalnet.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    names = {}
    for block in blocks:
        exec(compile(block, "focalnet.md", "exec"), names)
    return names


def test_the_layers_of_the_page(found):
    assert found["y"].shape == (2, 30, 45, 64)
    assert found["near"].kernel_sizes == (3, 5)
    assert [1 + sum(k - 1 for k in found[name].kernel_sizes) for name in ("near", "far")] == [7, 31]


def test_the_networks_of_the_page(found):
    assert found["model"].get_classifier().out_features == 10
    assert [tuple(m.shape[1:]) for m in found["maps"]] == [
        (96, 23, 33),
        (192, 12, 17),
        (384, 6, 9),
        (768, 3, 5),
    ]
    assert found["by_stage"].stages[0][0].mixer.kernel_sizes == (11, 13)
    assert [tuple(m.shape[1:]) for m in found["after_every_block"]] == [(192, 5, 7)] * 12


@pytest.mark.long
def test_the_table_is_what_the_models_are():
    from qna.analysis.cost import total_macs
    from qna.models import FOCALNET, create

    rows = re.findall(r"^\| `(\w+)` \| ([\d, ]+) \| ([\d,]+) \| ([\d.]+) \|$", PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == [name for name in FOCALNET if "nano" not in name]
    for name, kernels, parameters, macs in rows:
        variant = FOCALNET[name]
        assert list(variant.kernel_sizes(0)) == [int(k) for k in kernels.split(",")]
        assert int(parameters.replace(",", "")) == variant.parameters
        counted = total_macs(create(name, device="meta"), (1, 3, 224, 224))
        assert f"{counted / 1e9:.2f}" == macs
