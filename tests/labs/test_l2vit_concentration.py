"""The laboratory of local concentration: contenders of equal cost, what it measures, its rule."""

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.analysis.cost import total_macs
from qna.labs.l2vit_concentration.config import L2ViTConcentrationConfig
from qna.labs.l2vit_concentration.layers import FULL, LINEAR, layer_case
from qna.labs.l2vit_concentration.networks import CONCENTRATED, NETWORKS, PLAIN, SOFTMAX, build
from qna.labs.l2vit_concentration.training import entropy, near_mass
from qna.labs.l2vit_concentration.verdict import made_up, power, verdict
from qna.mixers import FullAttention2d, LinearAttention2d


def built(name):
    with seeded(0):
        return build(name, channels=1, classes=10, dim=32, patch_size=2).eval()


def test_the_control_has_no_fewer_parameters_and_multiply_adds():
    parameters = {n: sum(p.numel() for p in built(n).parameters()) for n in NETWORKS}
    macs = {n: total_macs(built(n), (1, 1, 28, 28)) for n in NETWORKS}
    assert 0.99 * parameters[PLAIN] < parameters[CONCENTRATED] <= parameters[PLAIN]
    assert 0.99 * macs[PLAIN] < macs[CONCENTRATED] <= macs[PLAIN]
    assert macs[PLAIN] < macs[SOFTMAX]


def test_contenders_differ_in_the_last_block():
    mixers = {n: built(n).stages[0][1].mixer for n in NETWORKS}
    assert isinstance(mixers[SOFTMAX], FullAttention2d)
    assert isinstance(mixers[PLAIN], LinearAttention2d)
    assert isinstance(built(PLAIN).stages[0][1].near, nn.Identity)
    first = built(CONCENTRATED).stages[0][0].state_dict()
    for name in (PLAIN, SOFTMAX):
        other = built(name).stages[0][0].state_dict()
        assert all(torch.equal(first[n], other[n]) for n in first)


def test_a_filter_gives_all_from_near_and_even_attention_by_chance():
    block = built(CONCENTRATED).stages[0][1]
    x = torch.randn(2, 14, 14, 32)
    plain = built(PLAIN).stages[0][1]
    with torch.no_grad():
        for part in (block, plain):
            nn.init.zeros_(part.mixer.out.weight)
        for conv in (block.near.concentration.conv1, block.near.concentration.conv2):
            # together they reach three positions
            conv.weight.zero_()
            conv.weight[..., 2:4, 2:4] = 1
        # queries and keys that no map changes: all positions get alike
        plain.mixer.qkv.weight[:64] = 0
        plain.mixer.qkv.bias[:64] = 1
        nn.init.normal_(plain.mixer.out.weight)
    assert near_mass(block, x)[0] == pytest.approx(100)
    near, chance = near_mass(plain, x)
    # a norm before it gives each position a gradient of its own size
    assert near == pytest.approx(chance, rel=0.1)
    assert entropy(plain, x) == pytest.approx(100)


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "held"),
        ({"above": 0.15}, "direction only"),
        ({"near": 0.05}, "direction only"),
        ({"above": -0.2}, "not seen"),
        ({"near": -1.0}, "not seen"),
        ({"linear": 1.3}, "not seen"),
        ({"full": 1.2}, "not seen"),
    ],
    ids=str,
)
def test_the_rule(changes, word):
    assert verdict(made_up(**changes)).word == word


def test_powers_are_those_of_the_ends():
    metrics = made_up(linear=1.1)
    assert power(metrics, LINEAR, "time") == pytest.approx(1.1)
    assert power(metrics, FULL, "memory") == pytest.approx(2)
    assert power({layer_case(32): metrics[layer_case(32)]}, LINEAR, "time") is None


def test_figures_that_are_missing_make_no_claim():
    metrics = {case: {n: f for n, f in of.items() if n != PLAIN} for case, of in made_up().items()}
    assert verdict(metrics).word == "not seen"
    assert verdict({}).word == "not seen"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"sides": (8,)}, r"sides must be two or more, ascending and below largest=512, got \(8,\)"),
        ({"sides": (8, 600)}, "sides must be two or more"),
        ({"seconds": 0.0}, "seconds must be above 0, got 0"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"probed": 0}, "probed must be at least 1, got 0"),
    ],
)
def test_configurations_that_are_none(changes, told):
    with pytest.raises(InvalidInput, match=told):
        L2ViTConcentrationConfig(**changes)
