"""The laboratory of bi-level routing: networks that differ in routes alone, its rule, what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.analysis.cost import total_macs
from qna.labs.biformer_routing.config import BiFormerRoutingConfig
from qna.labs.biformer_routing.networks import CONTENDERS, FULL, RANDOM, ROUTED, WINDOWS, build
from qna.labs.biformer_routing.verdict import made_up, verdict
from qna.mixers import FullAttention2d

SIZES = {"channels": 1, "size": 28, "dim": 32, "blocks": 2, "patch_size": 2, "regions": 7, "topk": 4}


def built(name):
    with seeded(0):
        return build(name, **SIZES)


def mixer_of(name):
    return built(name).stages[0][0].mixer


def test_contenders_have_the_same_parameters_and_differ_in_routes():
    networks = {name: built(name) for name in CONTENDERS}
    first = dict(networks[ROUTED].named_parameters())
    for network in networks.values():
        own = dict(network.named_parameters())
        assert own.keys() == first.keys()
        assert [p.shape for p in own.values()] == [p.shape for p in first.values()]
    macs = {name: total_macs(network, (1, 1, 28, 28)) for name, network in networks.items()}
    assert macs[WINDOWS] < macs[ROUTED] == macs[RANDOM] < macs[FULL]
    x = torch.randn(2, 1, 28, 28)
    answers = [network(x) for network in networks.values()]
    assert not any(torch.equal(answers[0], other) for other in answers[1:])


def test_what_each_region_attends():
    x = torch.randn(2, 14, 14, 32)
    own = torch.arange(49).view(7, 7)
    assert torch.equal(mixer_of(WINDOWS).routes(x), own.expand(2, 7, 7)[..., None])
    random = mixer_of(RANDOM).routes(x)
    assert random.shape == (2, 7, 7, 4)
    assert torch.equal(random[..., 0], own.expand(2, 7, 7))
    assert all(len(set(of_region)) == 4 for of_region in random.flatten(0, 2).tolist())
    assert torch.equal(random, mixer_of(RANDOM).routes(2 * x))
    assert not torch.equal(mixer_of(ROUTED).routes(x)[0], mixer_of(ROUTED).routes(x)[1])


@torch.no_grad()
def test_the_full_one_attends_the_whole_map():
    mixer, x = mixer_of(FULL).double(), torch.randn(1, 14, 14, 32).double()
    full = FullAttention2d(32, num_heads=2, bias=True).double()
    full.qkv.load_state_dict(mixer.qkv.state_dict())
    full.qkv.weight[:32] *= 2**-0.5  # the scale is of all channels, not of a head's
    enhanced = mixer.lepe((x @ mixer.qkv.weight[64:].T).movedim(-1, 1)).movedim(1, -1)
    full.out = torch.nn.Identity()
    torch.testing.assert_close(mixer(x), mixer.out(full(x) + enhanced), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("above", "word"),
    [
        ({}, "held"),
        ({"windows": -0.3}, "not seen"),
        ({"random": 0.05}, "direction only"),
        # as good as full attention is part of it
        ({"full": -1.0}, "direction only"),
        ({"random": -0.2}, "not seen"),
    ],
    ids=str,
)
def test_the_rule(above, word):
    assert verdict(made_up(**above)).word == word


def test_figures_that_are_missing_make_no_claim():
    metrics = {case: dict(found) for case, found in made_up().items()}
    for found in metrics.values():
        found.pop(RANDOM, None)
    assert verdict(metrics).word == "not seen"
    assert "layer" not in verdict({c: f for c, f in made_up().items() if c != "layer"}).figures


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"topk": 49}, "topk must be below the 49 regions, got 49"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"side_dim": 16}, "side_dim must be a multiple of 32, got 16"),
        ({"seconds": 0.0}, "seconds must be above 0, got 0"),
        ({"rates": ()}, "rates must be positive and differ"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_configurations_that_are_none(changes, told):
    with pytest.raises(InvalidInput, match=told):
        BiFormerRoutingConfig(**changes)
