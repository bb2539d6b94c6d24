"""The laboratory of OverLoCK's context: networks that differ in one thing, its rule, what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.labs.overlock_context.config import OverLoCKContextConfig
from qna.labs.overlock_context.networks import BLIND, NETWORKS, STATIC, WHOLE, build, enlarged
from qna.labs.overlock_context.verdict import growth, made_up, verdict


def test_networks_share_what_they_have_in_common():
    networks = {name: build(name, channels=1, seed=3) for name in NETWORKS}
    states = {name: network.state_dict() for name, network in networks.items()}
    assert states[WHOLE].keys() == states[BLIND].keys()
    own = {n for n in states[WHOLE] if not torch.equal(states[WHOLE][n], states[BLIND][n])}
    # what gives zeros whatever it holds
    assert {n.rpartition(".")[0] for n in own} == {"stages.2.4"}
    common = states[STATIC].keys() & states[WHOLE].keys()
    assert {n for n in common if not torch.equal(states[WHOLE][n], states[STATIC][n])} == own
    macs = {name: total_macs(network, (1, 1, 64, 64)) for name, network in networks.items()}
    assert macs[WHOLE] == macs[BLIND] > macs[STATIC]


def test_only_the_whole_network_reads_its_overview():
    x = torch.randn(1, 1, 64, 64)
    for name in NETWORKS:
        network = build(name, channels=1, seed=0).eval()
        overview = network.stages[2][3]
        (gradient,) = torch.autograd.grad(network(x).square().sum(), overview.mlp.fc2.weight)
        assert gradient.any() == (name == WHOLE)


def test_enlarged_images_are_pixels_again():
    images = torch.randint(0, 256, (2, 1, 5, 5), dtype=torch.uint8)
    assert torch.equal(enlarged(images, 5), images)
    assert enlarged(images, 9).dtype == torch.uint8


def test_growth_is_that_of_the_images():
    grown = growth(made_up(whole=400.0, static=200.0))
    assert set(grown[WHOLE].values()) == {1.0}
    assert set(grown[STATIC].values()) == {0.0}


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({}, "held"),
        ({"above": 0.1}, "direction only"),
        ({"static": 225.0}, "direction only"),
        ({"whole": 290.0}, "direction only"),
        ({"above": -1.0, "static": 490.0}, "not seen"),
    ],
)
def test_the_rule(changes, word):
    found = verdict(made_up(**changes))
    assert found.word == word
    assert "overlock 200 px at 256" in found.figures


def test_a_network_that_is_missing_is_no_figure():
    metrics = {
        case: {name: at for name, at in contenders.items() if name != STATIC}
        for case, contenders in made_up().items()
    }
    assert verdict(metrics).word == "not seen"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"fields": (256,)}, r"fields must be two sizes or more, .* got \(256,\)"),
        ({"fields": (256, 128)}, "from small to large"),
        ({"fields": (16, 64)}, "none below 32 pixels"),
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
    ],
)
def test_configurations_that_are_refused(arguments, told):
    with pytest.raises(InvalidInput, match=told):
        OverLoCKContextConfig(**arguments)
