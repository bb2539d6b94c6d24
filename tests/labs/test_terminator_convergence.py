"""The laboratory of Terminator's convergence: its rule, its networks, and what it measures."""

import pytest
import torch
from torch import nn

from qna._core.errors import InvalidInput
from qna._core.with_losses import WithLosses
from qna.data.images.labelled import TensorImages
from qna.labs import classifying
from qna.labs.terminator_convergence.config import TerminatorConvergenceConfig
from qna.labs.terminator_convergence.networks import (
    ADAMW,
    KAR3,
    NETWORKS,
    RESIDUAL,
    TERMINATOR_NET,
    build,
    contender,
    optimize,
)
from qna.labs.terminator_convergence.training import shrunk, stored_change
from qna.labs.terminator_convergence.verdict import FIRST, best, made_up, verdict
from qna.models import Kar3

CONFIG = TerminatorConvergenceConfig()


def test_networks_are_of_one_size():
    sizes = [
        sum(p.numel() for p in build(name, CONFIG, channels=1, size=14, seed=0).parameters())
        for name in NETWORKS
    ]
    assert max(sizes) < 1.1 * min(sizes)


def test_optimizers_and_what_decay_leaves_alone():
    network = build(TERMINATOR_NET, CONFIG, channels=1, size=14, seed=0)
    assert isinstance(optimize(KAR3, network, 1e-3), Kar3)
    decayed, alone = optimize(ADAMW, network, 1e-3).param_groups
    assert (decayed["weight_decay"], alone["weight_decay"]) == (0.05, 0.0)
    frequencies = {id(p) for n, p in network.named_parameters() if ".wave" in n}
    assert {id(p) for p in alone["params"]} == frequencies
    assert len(decayed["params"]) + len(frequencies) == len(list(network.parameters()))
    (every,) = optimize(ADAMW, build(RESIDUAL, CONFIG, channels=1, size=14, seed=0), 1e-3).param_groups
    assert every["weight_decay"] == 0.05


class Own(nn.Module):
    """A network whose logits say nothing, with a loss of its own."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x):
        return WithLosses(x.new_zeros(len(x), 10), {"own": self.weight.square()})


def test_a_network_learns_from_its_own_losses_too():
    network, calls = Own(), []
    images = TensorImages(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.zeros(8, dtype=torch.int64))
    classifying.train(
        network,
        images,
        epochs=3,
        batch=4,
        rate=0.1,
        seed=0,
        optimize=lambda network, rate: torch.optim.SGD(network.parameters(), lr=rate),
        after_epoch=lambda: calls.append(network.eval()),
    )
    assert len(calls) == 3
    assert network.weight.item() < 0.9


def test_squares_of_pixels_are_averaged():
    pixels = torch.arange(32, dtype=torch.uint8).view(2, 1, 4, 4)
    images = shrunk(TensorImages(pixels, torch.zeros(2, dtype=torch.int64)), 2)
    assert images.pixels.dtype == torch.uint8
    # 2.5, 4.5, 10.5 and 12.5 to the nearest even number
    assert images.pixels[0, 0].tolist() == [[2, 4], [10, 12]]


def test_stored_change_is_none():
    network = build(TERMINATOR_NET, CONFIG, channels=1, size=8, seed=0)
    pixels = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    assert stored_change(network, TensorImages(pixels, torch.zeros(4, dtype=torch.int64))) == 0
    assert network.stages[0][0].slow_net.deployed


@pytest.mark.parametrize(
    ("metrics", "word"),
    [
        (made_up(), "held"),
        (made_up(change=1e-9), "direction only"),
        (made_up(early=0.0), "direction only"),
        (made_up(late=-6.0), "not seen"),
        (made_up(early=-6.0, late=-6.0), "not seen"),
        ({}, "not seen"),
    ],
)
def test_the_rule(metrics, word):
    assert verdict(metrics).word == word


def test_a_larger_network_cannot_win():
    metrics = made_up()
    for case in metrics.values():
        case[contender(TERMINATOR_NET, KAR3)]["none parameters"] = 2000.0
    assert verdict(metrics).word == "not seen"


def test_each_network_counts_by_its_better_optimizer():
    found = best(made_up(), FIRST)
    assert set(found) == set(NETWORKS)
    # AdamW's figures are 5 lower in these
    assert set(found[RESIDUAL].values()) == {50.0}
    assert sorted(found[TERMINATOR_NET].values()) == pytest.approx([59.7, 60.0, 60.3])


def test_what_is_refused():
    with pytest.raises(InvalidInput, match="dim must be"):
        TerminatorConvergenceConfig(dim=10)
