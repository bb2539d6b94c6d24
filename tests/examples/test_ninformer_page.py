"""docs/ninformer.md: its code runs, and its table is what the models are."""

import re
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "ninformer.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "ninformer.md", "exec"), names)
    return names


def test_the_layer_of_the_page(found):
    assert found["y"].shape == found["gate"].shape == (2, 8, 12, 64)
    mixer, x = found["mixer"], found["x"]
    torch.testing.assert_close(found["y"], mixer.proj(x) * found["gate"])
    assert mixer.macs(x.shape) == x.numel() * (4 * 96 + 64)


def test_the_networks_of_the_page(found):
    assert found["logits"].shape == (1, 10)
    assert [tuple(m.shape) for m in found["maps"]] == [(1, 256, 16, 16)] * 3
    assert found["wide"].stages[0][0].mixer.map_size == (8, 12)


def test_the_table_is_what_the_models_are():
    from qna.analysis.cost import total_macs
    from qna.models import create

    pattern = r"^\| `(\w+)` \| (\d+) \| ([\d,]+) \| ([\d.]+) \| (\d+) \|"
    rows = re.findall(pattern, PAGE, re.MULTILINE)
    assert len(rows) == 2
    for name, classes, parameters, macs, side in rows:
        model = create(name, num_classes=int(classes), device="meta")
        assert sum(p.numel() for p in model.parameters()) == int(parameters.replace(",", ""))
        assert f"{total_macs(model, (1, 3, int(side), int(side))) / 1e6:.2f}" == macs
