"""The laboratory of dropped tokens: who chooses, what it costs, and its rule."""

import copy

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.adapters.evit import EViT, kept_tokens
from qna.labs.evit_keep.choosing import ATTENDED, RANDOM, UNATTENDED, reduced
from qna.labs.evit_keep.config import EViTKeepConfig
from qna.labs.evit_keep.training import DENSE, layers, total_macs_of
from qna.labs.evit_keep.verdict import made_up, verdict
from qna.labs.small_vit import small_vit

CONFIG = EViTKeepConfig(dim=16, depth=4)


def test_choosers_keep_what_they_say():
    torch.manual_seed(0)
    network, images = small_vit(CONFIG, (1, 28, 28), 10).eval(), torch.randn(2, 1, 28, 28)
    adapter = EViT(0.5, layers=(1,))
    kept = {
        chooser: kept_tokens(reduced(copy.deepcopy(network), chooser, adapter, 0), images)[0]
        for chooser in (ATTENDED, UNATTENDED, RANDOM)
    }
    assert {k.shape for k in kept.values()} == {(2, 25)}
    for most, least, drawn in zip(*(kept[c].tolist() for c in (ATTENDED, UNATTENDED, RANDOM)), strict=True):
        # of 49 tokens, the one in the middle is kept by both
        assert len({*most} & {*least}) == 1
        assert {*drawn} not in ({*most}, {*least})
        assert len({*drawn}) == 25
    again = reduced(copy.deepcopy(network), RANDOM, adapter, 0)
    assert torch.equal(kept_tokens(again, images)[0], kept[RANDOM])
    other = reduced(copy.deepcopy(network), RANDOM, adapter, 1)
    assert not torch.equal(kept_tokens(other, images)[0], kept[RANDOM])


def test_multiply_adds_by_hand():
    config = EViTKeepConfig(dim=16, depth=4, patch_size=4, time_size=28, keep=(0.5,))
    assert layers(config) == (1, 2, 3)
    found = total_macs_of(config)
    ends = 49 * 16 * 16 + 10 * 16
    assert found[DENSE] == ends + 4 * (50 * 8 * 256 + 2 * 50**2 * 16)
    # 49 -> 25 and a fused one -> 13 and a fused one -> 7 and a fused one
    reads, keeps = (50, 50, 27, 15), (50, 27, 15, 9)
    assert found["evit 0.5"] == ends + sum(
        4 * n * 256 + 2 * n**2 * 16 + 4 * m * 256 for n, m in zip(reads, keeps, strict=True)
    )


def test_the_rule():
    assert verdict(made_up(time=0.75)).word == "held"
    assert verdict(made_up(time=0.8)).word == "direction only"
    assert verdict(made_up(time=1.1)).word == "not seen"
    assert verdict(made_up(dense=1.2)).word == "direction only"
    assert verdict(made_up(random=-0.15)).word == "direction only"
    assert verdict(made_up(least=0.2)).word == "not seen"
    missing = {case: figures for case, figures in made_up().items() if "0.5" in case}
    assert verdict(missing).word == "not seen"
    assert "missing" in verdict(missing).figures


def test_what_cannot_be_is_said():
    with pytest.raises(InvalidInput, match=r"keep must be parts between 0 and 1, one or more, got \(1.0,\)"):
        EViTKeepConfig(keep=(1.0,))
    with pytest.raises(InvalidInput, match="dim"):
        EViTKeepConfig(dim=20)
