"""docs/causal-mixers.md: its code runs, and gives what it says."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from qna.adapters import adapter
from qna.bench.measure import rows
from qna.cli.train import parse
from qna.models.decoder import create_decoder

PAGE = (Path(__file__).parents[2] / "docs" / "causal-mixers.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def found():
    pytest.importorskip("peft", reason="qna[language] brings it")
    names = {}
    torch.manual_seed(0)
    for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "causal-mixers.md", "exec"), names)
    return names


def test_core_tokens_hold_what_the_page_says(found):
    # four heads of core tokens, two of positions, keys and values of sixteen channels in single precision
    assert found["held"] == 4 * 2 * 16 * (4 * 18 + 2 * 76)
    mixer, trained, x = found["mixer"], found["trained"], found["x"]
    mixer.load_state_dict(trained.state_dict())
    torch.testing.assert_close(found["z"], mixer(x))


def test_weights_come_back(found):
    assert found["theirs"].keys() == {
        f"{name}.weight" for name in ("q_proj", "k_proj", "v_proj", "o_proj", "q_norm", "k_norm")
    }


def test_the_memory_does_not_grow(found):
    assert found["later"].nbytes == found["state"].nbytes
    assert found["later"].length == 440
    for name in ("beside", "before", "context"):
        assert found[name](torch.randn(1, 70, 64)).shape == (1, 70, 64)


def test_a_longer_context_by_groups(found):
    tokens = torch.randint(257, (1, 50))
    with torch.no_grad():
        torch.testing.assert_close(found["full"].eval()(tokens), found["longer"].eval()(tokens))
    # two heads of sixteen keys and values, in single precision
    assert found["in_groups"] == 2 * 2 * 16 * 4 * 40


def test_prompts_are_read_by_some_blocks(found):
    reader, standing, prompt = found["reader"], found["standing"], found["prompt"]
    assert 0.2 < found["share"] < 0.9
    assert found["attended"].shape == (1, 4, 600, 16)
    standing.load_state_dict(reader.state_dict())
    whole = reader(torch.cat([prompt, prompt[:, :1]], 1))
    torch.testing.assert_close(found["answer"], whole[:, -1:])
    assert not torch.allclose(found["read"], whole[:, :-1], atol=1e-4)


def test_the_commands_of_the_page_are_read():
    commands = re.findall(r"^    qna train (.*?[^\\])$", PAGE, re.DOTALL | re.MULTILINE)
    assert len(commands) == 3
    for command in commands:
        config = parse(shlex.split(command.replace("\\\n", " ")))
        assert config.run.task == "language"
        for name, arguments in config.network.adapters():
            adapter(name, **arguments)
        network = create_decoder(config.network.model, **config.network.model_arguments())
        assert network(torch.zeros(1, 8, dtype=torch.long)).shape == (1, 8, 257)


def test_the_figures_of_groups_are_those_of_the_rows():
    name = "2026-11-30-cpu-2cores-zen5-torch2.13-sequence-groups.csv"
    read = rows.read(Path(__file__).parents[2] / "benchmarks" / "results" / name)
    assert f"`{name}`" in PAGE
    measured = {(row.provider, row.case): row.p50 for row in read if row.metric == "throughput"}
    table = re.findall(r"^\| `(\w+1d)` \| (float32|bfloat16) \| ([\d, |]+) \|$", PAGE, re.MULTILINE)
    ours = [line for line in table if line[0] in ("ShiftedSparseAttention1d", "SinkFixedAttention1d")]
    assert len(ours) == 4
    at = table.index(ours[0])
    for mixer, dtype, cells in (*table[at - 2 : at], *ours):
        cases = [f"{what}-{n}x256-{dtype}" for what in ("prefill", "decode") for n in (1024, 8192, 32768)]
        assert cells.split(" | ") == [f"{measured[mixer, case]:,.0f}" for case in cases]
    full, groups, sinks = (
        measured[f"{m}Attention1d", "prefill-32768x256-float32"]
        for m in ("Causal", "ShiftedSparse", "SinkFixed")
    )
    assert [round(groups / full), round(sinks / full)] == [18, 15]


def test_the_figures_are_those_of_the_rows():
    (name,) = re.findall(r"`(\S+-sequence-memories\.csv)`", PAGE)
    read = rows.read(Path(__file__).parents[2] / "benchmarks" / "results" / name)
    measured = {(row.provider, row.case): row.p50 for row in read if row.metric == "throughput"}
    before = PAGE[: PAGE.index(name)].rpartition("Positions per second")[2]
    table = re.findall(r"^\| `(\w+1d)` \| ([\d, |]+) \|$", before, re.MULTILINE)
    assert len(table) == 5
    cases = [f"{what}-{n}x256-float32" for what in ("prefill", "decode") for n in (1024, 8192, 32768)]
    for mixer, cells in table:
        assert cells.split(" | ") == [f"{measured[mixer, case]:,.0f}" for case in cases]
    full, cores = (
        [measured[f"{name}Attention1d", case] for case in cases] for name in ("Causal", "CoreContext")
    )
    assert [round(cores[i] / full[i], 1) for i in (2, 5)] == [4.6, 3.0]


def test_attention_taken_apart(found):
    from qna.mixers import MIXERS

    torch.testing.assert_close(found["same"], found["logits"])
    assert [*found["look"]] == [f"blocks.{i}.mixer" for i in range(4)]
    assert found["less"] < found["grown"][1]
    assert found["grown"][0] == 0
    with torch.no_grad():
        for name in ("skipped", "bypassed"):
            assert not torch.allclose(found[name](found["tokens"]), found["logits"], atol=1e-3)
    assert len(found["skipped"].blocks) == 2
    rows = re.findall(r"^\| \w[\w-]+ \| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE)
    assert len(rows) == 7
    assert all(MIXERS[name].traits.causal for name in rows)


def test_the_figures_of_attention_taken_apart_are_those_of_the_rows():
    from qna.bench.measure import rows

    (name,) = re.findall(r"`(\S+-sequence-deconstructed\.csv)`", PAGE)
    read = rows.read(Path(__file__).parents[2] / "benchmarks" / "results" / name)
    measured = {(row.provider, row.case): row.p50 for row in read if row.metric == "throughput"}
    mixers = dict(re.findall(r"^\| (\w[\w-]+) \| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGE, re.MULTILINE))
    table = re.findall(r"^\| (\w[\w-]+) \| ([\d, |]+) \|$", PAGE, re.MULTILINE)
    assert [title for title, _ in table] == [*mixers]
    cases = [f"{what}-{n}x256-float32" for what in ("prefill", "decode") for n in (1024, 8192, 32768)]
    for title, cells in table:
        assert cells.split(" | ") == [f"{measured[mixers[title], case]:,.0f}" for case in cases]


def test_the_figures_of_prompts_are_those_of_their_rows():
    (name,) = re.findall(r"`(\S+-sequence-proxyattn\.csv)`", PAGE)
    read = rows.read(Path(__file__).parents[2] / "benchmarks" / "results" / name)
    measured = {(row.provider, row.case): row.p50 for row in read if row.metric == "throughput"}
    table = re.findall(r"^\| `(\w+1d)`, (\w+) \| ([\d, |]+) \|$", PAGE[: PAGE.index(name)], re.MULTILINE)
    assert len(table) == 4
    for mixer, dtype, cells in table:
        cases = [f"{what}-{n}x256-{dtype}" for what in ("prefill", "decode") for n in (1024, 8192, 32768)]
        assert cells.split(" | ") == [f"{measured[mixer, case]:,.0f}" for case in cases]
    gains = [
        measured["ProxyAttention1d", f"prefill-32768x256-{dtype}"]
        / measured["CausalAttention1d", f"prefill-32768x256-{dtype}"]
        for dtype in ("float32", "bfloat16")
    ]
    one, two = (f"{gain:.1f} times" for gain in gains)
    told = f"read {one} as fast as by torch's fused causal attention, in bfloat16 {two}"
    assert told in PAGE


def test_the_figures_of_memories_in_half_precision_are_those_of_their_rows():
    table = PAGE.split("-sequence-memories-bf16.csv`")[0].rpartition("| | read 1,024")[2]
    measured = {}
    for name in ("memories-bf16", "memory-as-context"):
        file = f"2026-11-30-cpu-2cores-zen5-torch2.13-sequence-{name}.csv"
        assert f"`{file}`" in PAGE
        read = rows.read(Path(__file__).parents[2] / "benchmarks" / "results" / file)
        measured |= {(row.provider, row.case): row.p50 for row in read if row.metric == "throughput"}
    lines = re.findall(r"^\| `(\w+1d)`(?:, (float32))? \| ([\d, |]+) \|$", table, re.MULTILINE)
    assert len(lines) == 7
    for mixer, dtype, cells in lines:
        cases = [
            f"{what}-{n}x256-{dtype or 'bfloat16'}"
            for what in ("prefill", "decode")
            for n in (1024, 8192, 32768)
        ]
        assert cells.split(" | ") == [f"{measured[mixer, case]:,.0f}" for case in cases]
