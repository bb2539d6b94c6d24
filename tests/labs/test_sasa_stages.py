"""The laboratory of stand-alone self-attention: its rule, and that its networks differ in one layer alone."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.labs.classifying import ACCURACY
from qna.labs.paired import case_of, seed_and_rate
from qna.labs.sasa_stages.config import SasaStagesConfig
from qna.labs.sasa_stages.network import StagedResNet
from qna.labs.sasa_stages.training import CONTROL, NETWORKS, attending
from qna.labs.sasa_stages.verdict import best_of, difference, made_up, verdict
from qna.mixers import StandAloneAttention2d

WIDTHS = (8, 16, 24)


def build(name):
    with seeded(0):
        return StagedResNet(1, 5, WIDTHS, attending(name, 3), 5)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_named_stages_attend(name):
    network = build(name)
    attends = [all(isinstance(b.spatial, StandAloneAttention2d) for b in stage) for stage in network.stages]
    wanted = {
        "attention-late": [0, 1, 1],
        "convolution": [0, 0, 0],
        "attention-early": [1, 0, 0],
    }
    assert attends == list(map(bool, wanted[name]))
    logits = network(torch.rand(2, 1, 15, 9))
    assert logits.shape == (2, 5)
    logits.square().sum().backward()
    assert not [n for n, p in network.named_parameters() if p.grad is None]


def test_networks_start_alike_in_all_else():
    control = build(CONTROL).state_dict()
    for name in NETWORKS:
        state = build(name).state_dict()
        shared = state.keys() & control.keys()
        assert all(".spatial." in key for key in state.keys() ^ control.keys())
        assert all(torch.equal(state[key], control[key]) for key in shared)


def test_attention_has_a_third_of_the_parameters_of_a_convolution():
    sizes = {name: sum(p.numel() for p in build(name).parameters()) for name in NETWORKS}
    # 3 C^2 for 9 C^2, two layers a stage, beside tables of 5 rows of a head's 8 channels
    assert sizes[CONTROL] - sizes["attention-late"] == 2 * sum(6 * w**2 - 40 for w in WIDTHS[1:])
    assert sizes[CONTROL] - sizes["attention-early"] == 2 * (6 * WIDTHS[0] ** 2 - 40)


@pytest.mark.parametrize(
    ("above", "word"),
    [
        ({"control": 0.0, "early": 0.2}, "held"),
        ({"control": -0.09, "early": 0.2}, "held"),
        ({"control": -0.2, "early": 0.2}, "direction only"),
        ({"control": 0.3, "early": -0.2}, "direction only"),
        ({"control": -0.2, "early": -0.2}, "not seen"),
        ({"parameters": 100_000.0}, "not seen"),
    ],
)
def test_the_rule(above, word):
    assert verdict(made_up(**above)).word == word


def test_each_network_counts_at_its_better_rate_and_seeds_are_paired():
    metrics = dict(made_up())
    for case in metrics:
        if case.endswith("lr0.01"):
            metrics[case][CONTROL]["train top1"] = 95.0
    best = best_of(metrics)
    assert best[CONTROL] == {0: 95.0, 1: 95.0}
    assert difference(best, CONTROL) == pytest.approx((-15.0, 0.1))
    metrics["accuracy-seed5-lr0.01"] = {CONTROL: {"train top1": 96.0}}
    assert difference(best_of(metrics), CONTROL) == pytest.approx((-15.0, 0.1))


def test_one_seed_is_no_figure():
    one = {case: at for case, at in made_up().items() if "seed0" in case}
    assert verdict(one).word == "not seen"


def test_cases_name_seed_and_rate():
    assert seed_and_rate(case_of(ACCURACY, 3, 4e-3)) == (3, 4e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"widths": (8, 12)}, r"widths must be multiples of 8, two or more, got \(8, 12\)"),
        ({"window": 4}, "window must be odd, got 4"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        SasaStagesConfig(**options)
