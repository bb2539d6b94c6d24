"""The laboratory of predicted masks: who chooses, what is found of attention, and its rule."""

import copy

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.adapters.sparsifiner import Sparsifiner
from qna.labs.small_vit import adapted_vit
from qna.labs.sparsifiner_recall.choosing import LOCAL, PREDICTED, RANDOM, choosing, recall, sparse
from qna.labs.sparsifiner_recall.config import SparsifinerRecallConfig
from qna.labs.sparsifiner_recall.verdict import made_up, verdict

CONFIG = SparsifinerRecallConfig(dim=16, depth=2)
SIZE = torch.Size((1, 28, 28))
IMAGES = torch.randn(3, *SIZE, generator=torch.Generator().manual_seed(0))


def network_of(**arguments):
    return adapted_vit(CONFIG, SIZE, 10, Sparsifiner(**arguments), 0).eval()


def test_choosers_choose_what_they_say():
    network = network_of()
    q = torch.randn(2, 1, 50, 16)
    chosen = {
        name: choosing(copy.deepcopy(network), name, 5).blocks[0].attn.mask_predictor.choose(q, q, 6)
        for name in (PREDICTED, RANDOM, LOCAL)
    }
    assert {c.shape for c in chosen.values()} == {(2, 1, 49, 6)}
    assert all(len({*row}) == 6 for c in chosen.values() for row in c.flatten(0, 2).tolist())
    # token 24 of the image stands in the middle of 7 x 7; 0 is the class token, and its neighbours follow
    assert {*chosen[LOCAL][0, 0, 24].tolist()} == {0, 25, 18, 24, 26, 32}
    assert torch.equal(chosen[LOCAL][0], chosen[LOCAL][1])
    assert not torch.equal(chosen[RANDOM][0], chosen[RANDOM][1])
    again = choosing(copy.deepcopy(network), RANDOM, 5)
    assert torch.equal(again.blocks[0].attn.mask_predictor.choose(q, q, 6), chosen[RANDOM])
    assert not torch.equal(again.blocks[1].attn.mask_predictor.choose(q, q, 6), chosen[RANDOM])


def test_recall_of_chance_and_of_attention_itself():
    counts = {0.1: 5, 0.5: 25}
    by_chance = recall(choosing(network_of(keep_rate=1.0), RANDOM, 1), IMAGES, counts)
    assert by_chance == {0.1: pytest.approx(10, abs=2), 0.5: pytest.approx(50, abs=3)}
    true = network_of(
        keep_rate=1.0,
        reduce_tokens=1,
        reduce_channels=1,
        coefficients=50,
        basis_threshold=0.0,
        scale="channels",
    )
    with torch.no_grad():
        for attention in sparse(true):
            p = attention.mask_predictor
            for projection in (p.proj_c_q, p.proj_c_k):
                projection.weight.copy_(torch.eye(16))
            for table in (p.proj_n, p.proj_back_n):
                table.copy_(torch.eye(50))
    assert recall(true, IMAGES, counts) == {
        0.1: pytest.approx(100, abs=0.5),
        0.5: pytest.approx(100, abs=0.5),
    }


def test_the_rule():
    assert verdict(made_up(dense=0.35)).word == "held"
    assert verdict(made_up(dense=0.6)).word == "direction only"
    assert verdict(made_up(local=-0.05)).word == "direction only"
    assert verdict(made_up(local=2.0)).word == "direction only"
    assert verdict(made_up(random=0.3)).word == "not seen"
    assert verdict(made_up(recalled=0.1)).word == "not seen"
    missing = {case: figures for case, figures in made_up().items() if "0.5" in case}
    assert verdict(missing).word == "not seen"
    assert "missing" in verdict(missing).figures


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"keep": (1.0,)}, "keep and tune_keep must be parts between 0 and 1"),
        ({"tune_rate": 0.0}, r"tune_rate must be above 0 and at most 1, got 0\.0"),
        ({"fit_epochs": 0}, "fit_epochs must be at least 1"),
    ],
)
def test_what_cannot_be_is_said(changes, says):
    with pytest.raises(InvalidInput, match=says):
        SparsifinerRecallConfig(**changes)
