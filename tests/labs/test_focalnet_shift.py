"""The laboratory of shifts: its rule, what it measures, and that its networks differ in the mixers alone."""

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna.data.images.labelled import TensorImages
from qna.labs.focalnet_shift.config import FocalNetShiftConfig
from qna.labs.focalnet_shift.networks import CONVOLUTION, FOCAL, NETWORKS, WINDOWS, build
from qna.labs.focalnet_shift.training import directions, framed, map_change, moved
from qna.labs.focalnet_shift.verdict import CHANGE, SAME, TOP1, at_best_rate, made_up, verdict
from qna.mixers import MIXERS

CONFIG = FocalNetShiftConfig()


def mixers(network):
    return [type(b.mixer).__name__ for stage in network.stages for b in stage if hasattr(b, "mixer")]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (FOCAL, ["FocalModulation2d"] * 4),
        (WINDOWS, ["WindowAttention2d", "ShiftedWindowAttention2d"] * 2),
        (CONVOLUTION, ["DepthwiseConvolution2d"] * 4),
    ],
)
def test_what_mixes_positions(name, wanted):
    network = build(name, CONFIG, channels=1, seed=0)
    assert mixers(network) == wanted
    assert set(wanted) <= MIXERS.keys()


def test_networks_start_alike_in_all_else():
    states = [build(name, CONFIG, channels=1, seed=3).state_dict() for name in NETWORKS]
    shared = {key for key in states[0] if ".mixer." not in key}
    assert all(".mixer." in key for state in states for key in state.keys() - shared)
    for key in shared:
        assert torch.equal(states[0][key], states[1][key])
        assert torch.equal(states[0][key], states[2][key])


@pytest.mark.parametrize("name", NETWORKS)
def test_linear_maps_begin_alike(name):
    network = build(name, FocalNetShiftConfig(dim=64), channels=1, seed=0)
    for linear in (m for m in network.modules() if isinstance(m, nn.Linear)):
        assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.1)
        assert linear.bias is None or not linear.bias.any()


def test_modulation_and_convolution_reach_alike():
    for name in (FOCAL, CONVOLUTION):
        mixer = build(name, CONFIG, channels=1, seed=0).stages[0][0].mixer.double()
        with torch.no_grad():
            for parameter in mixer.parameters():
                parameter.add_(torch.randn_like(parameter))
            if name == FOCAL:
                # the gate of the mean over the map
                mixer.query_gates.weight[-1] = mixer.query_gates.bias[-1] = 0
        x = torch.randn(1, 11, 11, 16, dtype=torch.float64, requires_grad=True)
        (grad,) = torch.autograd.grad(mixer(x)[0, 5, 5].sum(), x)
        assert (grad[0].abs().sum(-1) > 0).sum() == 49


def images(size=12):
    return TensorImages(torch.randint(1, 255, (3, 1, size, size), dtype=torch.uint8), torch.tensor([0, 1, 2]))


def test_a_moved_image_is_whole():
    framed_ones = framed(images(), 4)
    assert framed_ones.pixels.shape == (3, 1, 20, 20)
    for rows, columns in directions((2, 4)):
        there = moved(framed_ones, rows, columns).pixels
        assert torch.equal(
            there[:, :, 4 + rows : 16 + rows, 4 + columns : 16 + columns],
            framed_ones.pixels[:, :, 4:16, 4:16],
        )
        assert there.sum() == framed_ones.pixels.sum()
    assert len(set(directions((2, 4)))) == 8


class Moves(nn.Module):
    """A network whose map is the image itself, or one that does not move with it."""

    def __init__(self, follows):
        super().__init__()
        self.follows = follows
        self.feature_info = [{"reduction": 2}]

    def forward_features(self, x):
        x = x[:, :, ::2, ::2].movedim(1, -1)
        return x if self.follows else torch.linspace(0, 1, x.numel()).view(x.shape)


def test_the_change_of_a_map_that_follows_is_none():
    some = framed(images(), 4)
    assert map_change(Moves(True), some, 4) == 0
    assert map_change(Moves(False), some, 4) > 5


@pytest.mark.parametrize(
    ("figures", "word"),
    [
        ({}, "held"),
        ({"right": -0.09}, "held"),
        ({"right": -0.2}, "direction only"),
        ({"same": 0.15}, "direction only"),
        ({"same": 0.15, "right": -0.2}, "not seen"),
        ({"change": 50.0}, "not seen"),
        ({"macs": 10.1}, "not seen"),
    ],
)
def test_the_rule(figures, word):
    assert verdict(made_up(**figures)).word == word


def test_each_network_counts_at_its_better_rate_in_all_figures():
    metrics = dict(made_up())
    for case, contenders in metrics.items():
        if case.endswith("lr0.01"):
            contenders[WINDOWS] |= {TOP1: 95.0, SAME: 99.0, CHANGE: 1.0}
    assert at_best_rate(metrics, SAME)[WINDOWS] == {0: 99.0, 1: 99.0}
    assert at_best_rate(metrics, SAME)[FOCAL] == {0: 84.9, 1: 85.1}
    assert verdict(metrics).word == "not seen"


def test_one_seed_is_no_figure():
    one = {case: at for case, at in made_up().items() if "seed0" in case}
    assert verdict(one).word == "not seen"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"shifts": (2, 7)}, r"shifts must be pixels from 1 to margin=6, one or more, got \(2, 7\)"),
        ({"shifts": ()}, "shifts must be pixels"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
        ({"minutes": 0.0}, "minutes must be above 0, got 0"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        FocalNetShiftConfig(**options)
