"""What the CUDA backend leaves to others, and the reasons that it gives."""

import logging
from dataclasses import replace

import pytest
import torch

from qna._core import backends
from qna._core.errors import NoBackend
from qna.ops import learned_query_attention
from qna.ops._shared.cuda import driver, nvrtc
from qna.ops.learned_query import ROW
from qna.ops.learned_query.cases import BY_NAME, Case
from qna.ops.learned_query.cuda import backend, plan
from qna.ops.learned_query.inputs import NAME, Inputs


class OnCard(Inputs):
    """Inputs that say they are on a card."""

    @property
    def device(self):
        return torch.device("cuda")


def judged(case):
    geometry = {"stride": 1, "padding": "same", "dilation": 1, "factor": 1, **case.window}
    return OnCard.apart(*case.make().values(), geometry)


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (BY_NAME["1d"], "kernel is (3,), needs one of (3, 3), (5, 5), (7, 7)"),
        (BY_NAME["2d-even"], "kernel is (4, 2), needs one of"),
        (BY_NAME["2d-stride-2"], "stride is (2, 2), needs 1 along every axis"),
        (Case("", (9, 9), (3, 3), window={"dilation": 2}), "dilation is (2, 2), needs 1 along every axis"),
        (BY_NAME["2d-upsampled"], "factor is (2, 2), needs 1 along every axis"),
        (Case("", (9, 9), (3, 3), queries=3), "queries are 3, needs one of (1, 2, 4)"),
        (
            Case("", (3, 3), (3, 3), head_dim=9),
            "head_dim is 9, needs at most 8, or 2, 4 or 8 times a number up to 8",
        ),
        (Case("", (3, 3), (3, 3), head_dim=65), "head_dim is 65, needs at most 64"),
    ],
    ids=lambda x: x.name if isinstance(x, Case) else "",
)
def test_it_says_what_it_leaves_to_others(case, words):
    reasons = replace(backend.BACKEND, missing=list).reasons(judged(case))
    assert any(words in reason for reason in reasons), reasons
    assert len(reasons) == 1


def test_it_stands_behind_triton_until_a_card_has_measured_it():
    names = [b.name for b in ROW.backends]
    assert names.index("cuda") == names.index("triton") + 1


def test_named_where_there_is_no_card_it_says_what_is_missing():
    if not backend.BACKEND.missing():
        pytest.skip("there is a card")
    with pytest.raises(NoBackend, match="torch sees no GPU"):
        learned_query_attention(**BY_NAME["2d-3x3"].make(), backend="cuda")


@pytest.fixture
def broken(monkeypatch, tmp_path):
    """A card whose compiler refuses the sources."""
    (tmp_path / "attend.cu").write_text("nonsense;\n")
    plan._program.cache_clear()
    monkeypatch.setattr(plan, "KERNELS", tmp_path)
    monkeypatch.setattr(plan, "limits", lambda device: driver.Limits(227 * 1024, 228 * 1024))
    monkeypatch.setattr(driver, "missing", list)
    monkeypatch.setattr(driver, "architecture", lambda device: "sm_90")
    monkeypatch.setattr(backends, "_noticed", set())
    yield (replace(backend.BACKEND, missing=list), ROW.reference)
    plan._program.cache_clear()


@pytest.mark.skipif(bool(nvrtc.missing()), reason="; ".join(nvrtc.missing()) or "there")
def test_what_does_not_compile_goes_to_the_next_one_and_this_is_said_once(broken, caplog):
    inputs = judged(BY_NAME["2d-3x3"])
    with caplog.at_level(logging.WARNING, logger="qna"):
        chosen = [backends.select(NAME, broken, inputs, None).name for _ in range(3)]
    assert chosen == ["reference"] * 3
    assert len(caplog.records) == 1
    assert "cuda: it does not compile: attend for sm_90" in caplog.text


@pytest.mark.skipif(bool(nvrtc.missing()), reason="; ".join(nvrtc.missing()) or "there")
def test_named_it_never_gives_way(broken):
    with pytest.raises(NoBackend, match="it does not compile: attend for sm_90"):
        backends.select(NAME, broken, judged(BY_NAME["2d-3x3"]), "cuda")
