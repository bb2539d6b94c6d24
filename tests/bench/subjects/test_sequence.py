"""Speeds of causal mixers: gated by equality, refused by memory, and rows that say what was asked."""

from dataclasses import replace

import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.bench.measure import memory, rows
from qna.bench.measure.harness import Plan
from qna.bench.subjects import sequence
from qna.bench.subjects.sequence import SequenceSetting, arguments_of, measured, names, one
from qna.cli import main
from qna.mixers import MIXERS, CausalLinearAttention1d

QUICK = Plan(seconds=0.01, turns=2)
SETTING = SequenceSetting(24, 16, "float32")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", names())
def test_every_causal_mixer_is_measured(name, dtype):
    found = one(name, replace(SETTING, dtype=dtype), QUICK, memory=False)
    assert found.reason is None, found.reason
    prefill, decode = found.rows
    assert (prefill.case, decode.case) == (f"prefill-24x16-{dtype}", f"decode-24x16-{dtype}")
    assert {(row.provider, row.metric, row.unit) for row in found.rows} == {(name, "throughput", "tokens/s")}
    for row in found.rows:
        assert 0 < row.p20 <= row.p50 <= row.p80
        assert row.extra["arguments"] == arguments_of(name)
        # behind the prompt
        mixer = MIXERS[name].create(16, **arguments_of(name))
        assert row.extra["state_bytes"] == mixer.state_bytes((1, 24, 16), getattr(torch, dtype))


@pytest.mark.skipif(memory.cannot_probe() is not None, reason=str(memory.cannot_probe()))
def test_memory_has_rows_of_its_own():
    found = one("CausalAttention1d", SequenceSetting(2048, 64, "float32"), QUICK)
    assert [(row.case.partition("-")[0], row.metric) for row in found.rows] == [
        ("prefill", "throughput"),
        ("decode", "throughput"),
        ("prefill", "memory"),
        ("decode", "memory"),
    ]
    # queries at least, for all positions
    assert found.rows[2].p50 > 2048 * 64 * 4 / 2**20 > found.rows[3].p50


class Forgetful(CausalLinearAttention1d):
    """Forgets the last position of every step that is not the first."""

    def advance(self, x, state):
        y, later = super().advance(x, state)
        return y, state.after(x.shape[1]) if state.length else later


def test_steps_that_are_not_the_whole_have_no_speed(monkeypatch):
    row = MIXERS["CausalLinearAttention1d"]
    monkeypatch.setitem(MIXERS, "Forgetful", replace(row, build=Forgetful))
    found = one("Forgetful", SETTING, QUICK)
    assert not found.rows
    assert found.reason.startswith("WRONG: steps behind the prompt")


def test_what_does_not_fit_is_refused(monkeypatch):
    monkeypatch.setattr(sequence, "refuse_above_memory", lambda device, needed, what: f"{needed} of {what}")
    found = one("CausalAttention1d", SETTING, QUICK)
    size = (1, 28, 16)
    with torch.device("meta"):
        mixer = MIXERS["CausalAttention1d"].create(16, **arguments_of("CausalAttention1d"))
    weights = sum(p.numel() for p in mixer.parameters())
    needed = 2 * ((mixer.held(size) + weights) * 4 + mixer.state_bytes(size))
    assert found.reason == f"{needed} of what is held and remembered"
    assert not found.rows
    # a mixer's own refusal is told as it is
    told = one("CausalAttention1d", SequenceSetting(8, 12, "float32"), QUICK).reason
    assert "num_heads must divide dim, got num_heads=8 and dim=12" in told


def test_what_cannot_be_asked():
    with pytest.raises(InvalidInput, match="QnA1d is not causal; these are: CausalAttention1d"):
        list(measured(["QnA1d"], [SETTING], QUICK))
    with pytest.raises(UnknownName, match="unknown dtype 'float33'"):
        list(measured(["CausalAttention1d"], [replace(SETTING, dtype="float33")], QUICK))
    with pytest.raises(InvalidInput, match="sizes must be at least 1, got 0 x 16"):
        list(measured(["CausalAttention1d"], [replace(SETTING, length=0)], QUICK))


def test_the_command(tmp_path, capsys):
    out = tmp_path / "rows.csv"
    words = ["bench", "sequence", "--mixers", "SlidingAttention1d", "--lengths", "16", "--dim", "16"]
    words += ["--dtype", "float32", "--seconds", "0.01", "--no-memory", "--out", str(out)]
    assert main(words) == 0
    assert "SlidingAttention1d 16 x 16 float32: prefill" in capsys.readouterr().out
    assert [row.case for row in rows.read(out)] == ["prefill-16x16-float32", "decode-16x16-float32"]
    assert main(["bench", "sequence", "--mixers", "Sliding", "--out", str(out)]) == 2
