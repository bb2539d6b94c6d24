"""docs/language.md: its code runs, and its tables are what the registry and the kinds of sequences are."""

import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from qna.data.text import KINDS, kind_of
from qna.models.decoder import VARIANTS

PAGE = (Path(__file__).parents[2] / "docs" / "language.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    names = {}
    torch.manual_seed(0)
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "language.md", "exec"), names)
    return names


def test_parts_are_the_whole(found):
    torch.testing.assert_close(torch.cat(found["parts"], 1), found["whole"])
    assert found["beams"].batch == 3
    # two heads of sixteen keys and values, in single precision, of two sequences
    assert found["kept"] == 2 * 2 * 2 * 16 * 4 * (15 + 4)


def test_the_decoder_of_the_page(found):
    assert found["logits"].shape == (1, 50, 257)
    names = [type(block.mixer).__name__ for block in found["decoder"].blocks]
    assert names == ["CausalAttention1d", "SlidingAttention1d"] * 2
    assert found["memory"].length == 50
    assert found["batch"].tokens.shape == (8, 64)


def test_the_tables_are_what_there_is():
    rows = re.findall(
        r"^\| `(decoder_\w+)` \| ([\d,]+) \| (\d+) \| (\d+) \| (\d+), (\d+) \|", PAGE, re.MULTILINE
    )
    told = {name: tuple(int(n.replace(",", "")) for n in numbers) for name, *numbers in rows}
    assert told == {
        name: (v.parameters, v.dim, v.depth, v.num_heads, v.kv_heads) for name, v in VARIANTS.items()
    }
    kinds = re.findall(r"^\| `(\w+:[\w=,]+)` \|", PAGE, re.MULTILINE)
    assert [text.partition(":")[0] for text in kinds] == [*KINDS]
    for text in kinds:
        kind = kind_of(text)
        assert kind == type(kind)()
        assert sorted(asdict(kind)) == sorted(w.partition("=")[0] for w in text.partition(":")[2].split(","))


def test_the_figures_are_those_of_the_rows():
    from qna.bench.measure import rows

    (name,) = re.findall(r"`(\S+-sequence\.csv)`", PAGE)
    read = rows.read(Path(__file__).parents[2] / "benchmarks" / "results" / name)
    measured = {(row.provider, row.case): f"{row.p50:,.0f}" for row in read if row.metric == "throughput"}
    table = re.findall(r"^\| `(\w+)` \| (float32|bfloat16) \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(table) == 6
    lengths = [1024, 8192, 32768]
    for mixer, dtype, cells in table:
        cases = [f"{what}-{n}x256-{dtype}" for what in ("prefill", "decode") for n in lengths]
        assert cells.split(" | ") == [measured.get((mixer, case), "-") for case in cases]
