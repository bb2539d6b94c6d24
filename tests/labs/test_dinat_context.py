"""The laboratory of dilated neighbourhoods: networks that differ in one thing, its rule, what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.analysis.cost import total_macs
from qna.labs.classifying import ACCURACY
from qna.labs.dinat_context.config import DiNATContextConfig
from qna.labs.dinat_context.networks import CONTENDERS, DILATED, PLAIN, WIDER, build, dilation_of
from qna.labs.dinat_context.verdict import ABLATION
from qna.labs.paired import case_of, seed_and_rate

SIZES = {"channels": 1, "size": 28, "dim": 32, "blocks": 2, "patch_size": 2}


def test_dilation_changes_neither_parameters_nor_multiply_adds():
    networks = {name: build(name, **SIZES) for name in CONTENDERS}
    shapes = {
        name: {n: tuple(p.shape) for n, p in network.named_parameters()} for name, network in networks.items()
    }
    assert shapes[DILATED] == shapes[PLAIN] != shapes[WIDER]
    macs = {name: total_macs(network, (1, 1, 28, 28)) for name, network in networks.items()}
    assert macs[DILATED] == macs[PLAIN] < macs[WIDER]


def test_dilated_networks_see_further():
    """Of what part of the image a position of the map is made: of 5x5 positions, and of nine times 3x3."""
    seen = {}
    for name in (DILATED, PLAIN):
        network, x = build(name, **SIZES).double(), torch.randn(1, 1, 28, 28).double().requires_grad_()
        (grad,) = torch.autograd.grad(network.forward_features(x)[0, 7, 7, 0], x)
        seen[name] = (grad != 0).sum().item() / 4
    assert seen == {PLAIN: 25, DILATED: 81}


def test_dilations_fill_the_maps():
    assert [dilation_of(size, 7) for size in (56, 28, 14, 7)] == [8, 4, 2, 1]  # the published ones
    assert [dilation_of(size, 3) for size in (14, 2)] == [4, 1]


def test_a_gain_that_is_paid_for_does_not_count():
    assert ABLATION.verdict(ABLATION.made_up(1.0)).word == "held"
    assert ABLATION.verdict(ABLATION.made_up(1.0, macs=3.1)).word == "not seen"


def test_the_verdict_tells_all_three():
    told = ABLATION.verdict(ABLATION.made_up(1.0)).figures
    assert "dinat 81.00 %, 3.00 million multiply-adds; nat 80.00 %" in told
    assert "(difference +1.00, standard error 0.10, 2 seeds); nat-5x5 81.00 %, 4.00 million" in told


def test_one_seed_is_no_figure():
    one = {case: at for case, at in ABLATION.made_up(1.0).items() if "seed0" in case}
    assert ABLATION.verdict(one).word == "not seen"


def test_cases_name_seed_and_rate():
    assert seed_and_rate(case_of(ACCURACY, 3, 4e-3)) == (3, 4e-3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        DiNATContextConfig(**options)
