"""The laboratory of reduced attention: who has how many parameters, what an image costs, and its rule."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.labs.minimal_order.config import MinimalOrderConfig
from qna.labs.minimal_order.networks import FORMS, FULL, MINIMAL, NARROW, NETWORKS, build, parameters
from qna.labs.minimal_order.verdict import made_up, verdict

IMAGE = torch.Size((1, 28, 28))
CONFIG = MinimalOrderConfig()


def test_parameters_fall_in_order_to_a_tenth():
    with torch.device("meta"):
        counts = {name: parameters(build(name, CONFIG, IMAGE, 10)) for name in NETWORKS}
    order = [counts[name] for name in FORMS]
    assert order == sorted(order, reverse=True)
    # of the published counts, without the norms that nothing runs through
    assert (counts[FULL], counts[MINIMAL]) == (304_906, 31_498 - 768)
    narrow = build(NARROW, CONFIG, IMAGE, 10)
    assert counts[NARROW] == parameters(narrow)
    assert narrow.num_features < CONFIG.dim
    fewer = MinimalOrderConfig(dim=narrow.num_features - 1)
    assert parameters(build(FULL, fewer, IMAGE, 10)) < counts[MINIMAL] <= counts[NARROW]


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_alike_but_for_their_matrices(name):
    network = build(name, CONFIG, IMAGE, 10).eval()
    assert len(network.stages) == CONFIG.depth
    blocks = [stage[0] for stage in network.stages]
    assert {b.attention.num_heads for b in blocks} == {1}
    assert {b.mlp is None for b in blocks} == {name == MINIMAL}
    assert not any(isinstance(m, torch.nn.Dropout) and m.p for m in network.modules())
    assert network(torch.zeros(2, *IMAGE)).shape == (2, 10)


def test_multiply_adds_by_hand():
    config = MinimalOrderConfig(dim=16, depth=2)
    ends = 16 * 49 * 16 + 160
    assert total_macs(build(FULL, config, IMAGE, 10), (1, *IMAGE)) == ends + 2 * 17 * 16 * (12 * 16 + 34)
    assert total_macs(build(MINIMAL, config, IMAGE, 10), (1, *IMAGE)) == ends + 2 * 17 * 16 * (16 + 34)


def test_the_rule():
    assert verdict(made_up(full=1.0)).word == "held"
    assert verdict(made_up(full=1.1)).word == "direction only"
    assert verdict(made_up(narrow=-0.15)).word == "direction only"
    assert verdict(made_up(narrow=0.1)).word == "not seen"
    # a fifth of the parameters and no more, and no more than the control
    assert verdict(made_up(count=61_000)).word == "not seen"
    assert verdict(made_up(count=33_001)).word == "not seen"
    without = {case: {n: at[n] for n in (MINIMAL, FULL)} for case, at in made_up().items()}
    assert "missing" in verdict(without).figures


def test_what_cannot_be_is_said():
    with pytest.raises(InvalidInput, match="patch_size must be at least 1"):
        MinimalOrderConfig(patch_size=0)
