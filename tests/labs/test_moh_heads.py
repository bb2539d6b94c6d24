"""The laboratory of chosen heads: fixed heads, what is counted, and its rule."""

import copy

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.adapters.moh import head_use
from qna.labs.moh_heads.choosing import BALANCED, FIXED, FREE, FixedHeads, all_alike, with_heads
from qna.labs.moh_heads.config import MoHHeadsConfig
from qna.labs.moh_heads.training import used
from qna.labs.moh_heads.verdict import CONTROL, OURS, made_up, names_in, verdict
from qna.labs.small_vit import small_vit

CONFIG = MoHHeadsConfig(depth=2)


def networks(speaking=3):
    torch.manual_seed(0)
    bare = small_vit(CONFIG, (1, 32, 32), 10).eval()
    return {
        k: with_heads(copy.deepcopy(bare), k, shared=1, speaking=speaking) for k in (BALANCED, FREE, FIXED)
    }


def test_as_many_heads_speak_whoever_chooses():
    x = torch.randn(2, 1, 32, 32)
    for kind, network in networks().items():
        shares = [*head_use(network, x).values()]
        assert len(shares) == 2
        for share in shares:
            assert share.sum().item() == pytest.approx(3)
            assert share[0] == 1
            assert (share.tolist() == [1, 1, 1, 0]) == (kind == FIXED)
        losses = getattr(network.train()(x), "losses", {})
        assert set(losses) == ({"balance"} if kind == BALANCED else set())


def test_fixed_heads_have_gates_of_their_own():
    gates, x = FixedHeads(8, 4, 3), torch.randn(2, 5, 8)
    expected = 3 * gates.wg_1(x).softmax(-1)
    torch.testing.assert_close(gates(x), torch.cat([expected, torch.zeros(2, 5, 1)], -1))


def test_what_is_counted_of_use():
    network, x = all_alike(networks(2)[FREE]), torch.randn(3, 1, 32, 32)
    # of three routed heads all tokens choose the first, and of four heads two are computed
    assert used(network, x, 1) == (pytest.approx(3.0), pytest.approx(50.0))
    busiest, computed = used(networks(2)[FREE], x, 1)
    assert 1 <= busiest < 3
    assert 50 < computed <= 100


def test_the_rule():
    assert verdict(made_up()).word == "held"
    assert verdict(made_up(plain=0.05)).word == "held"
    assert verdict(made_up(plain=0.5)).word == "direction only"
    assert verdict(made_up(fixed=-0.15)).word == "direction only"
    assert verdict(made_up(busy=0.1)).word == "direction only"
    assert verdict(made_up(fixed=0.2)).word == "not seen"
    assert verdict(made_up(busy=-0.5)).word == "not seen"
    assert names_in(made_up()) == ["all heads", OURS, "routed, no balance loss 0.75", CONTROL]


def test_what_cannot_be_is_said():
    with pytest.raises(InvalidInput, match=r"speaking must be parts of 4 heads, above 0.25 and below 1"):
        MoHHeadsConfig(speaking=(0.6,))
    with pytest.raises(InvalidInput, match="time_sizes must be at least 16 and seconds above 0"):
        MoHHeadsConfig(time_sizes=())
    with pytest.raises(InvalidInput, match="dim"):
        MoHHeadsConfig(dim=48)
