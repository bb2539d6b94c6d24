"""docs/minimal.md: its code runs, and its tables are what the layers and models are."""

import re
import shlex
from pathlib import Path

import pytest
import torch

PAGE = (Path(__file__).parents[2] / "docs" / "minimal.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    names = {}
    torch.manual_seed(0)
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "minimal.md", "exec"), names)
    return names


def test_the_layers_of_the_page(found):
    assert found["y"].shape == (2, 8, 12, 64)
    assert found["weights"].shape == (2, 8, 12, 4, 8, 12)
    tokens, layer = found["x"].flatten(1, 2), found["minimum"].qk
    expected = (layer(tokens) @ tokens.mT / 8).softmax(-1) @ tokens
    torch.testing.assert_close(found["y"].flatten(1, 2), expected, rtol=1e-4, atol=1e-5)
    assert sum(p.numel() for p in found["minimum"].parameters()) == 64**2 + 64
    assert sum(p.numel() for p in found["symmetric"].parameters()) == 4 * 16 * 17 // 2 + 2 * 64**2 + 2 * 64


def test_the_network_of_the_page_computes_what_it_did(found):
    torch.testing.assert_close(found["same"], found["before"], rtol=1e-3, atol=1e-4)
    blocks = sum(p.numel() for p in found["small"].blocks.parameters())
    assert blocks == 2 * (192**2 + 3 * 192)


def test_the_networks_of_the_page(found):
    assert found["logits"].shape == (1, 10)
    assert [tuple(m.shape) for m in found["maps"]] == [(1, 64, 4, 4)] * 6
    assert len(found["wide"].stages) == 12
    assert found["wide"].stem.map_size == (4, 6)


def test_its_command_is_read():
    from qna.adapters import MinimalForm, adapter
    from qna.cli.train import parse

    (command,) = re.findall(r"^    qna train (.*)$", PAGE, re.MULTILINE)
    words = ["digits" if word == "photos/" else word for word in shlex.split(command)]
    network = parse(words).network
    ((name, arguments),) = network.adapters()
    chosen = adapter(name, **arguments)
    assert chosen == MinimalForm("symmetric", "full", heads=1, mlp=False)


def test_the_table_is_what_the_models_are():
    from qna.analysis.cost import total_macs
    from qna.models import MINIMAL, create

    pattern = r"^\| `(\w+)` \| (\d) \| (\w+) \| (\w+) \| (yes|no) \| ([\d,]+) \| ([\d,]+) \| ([\d.]+) \|$"
    rows = re.findall(pattern, PAGE, re.MULTILINE)
    assert [name for name, *_ in rows] == [name for name, variant in MINIMAL.items() if variant.published]
    for name, heads, qk, value, mlp, parameters, published, macs in rows:
        variant = MINIMAL[name]
        assert (int(heads), qk, value, mlp == "yes") == (
            variant.num_heads,
            variant.qk,
            variant.value,
            bool(variant.mlp_ratio),
        )
        model = create(name, in_chans=variant.channels, device="meta")
        assert sum(p.numel() for p in model.parameters()) == int(parameters.replace(",", ""))
        assert variant.published == int(published.replace(",", ""))
        side = variant.image_size
        assert f"{total_macs(model, (1, variant.channels, side, side)) / 1e6:.2f}" == macs
