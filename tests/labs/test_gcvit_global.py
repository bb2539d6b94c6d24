"""The laboratory of global queries: networks that differ in one thing, its rule, what is refused."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna._core.seeds import seeded
from qna.analysis.cost import total_macs
from qna.labs.gcvit_global.config import GCViTGlobalConfig
from qna.labs.gcvit_global.networks import CONTENDERS, GLOBAL, LOCAL, SHIFTED, build
from qna.labs.gcvit_global.verdict import ABLATION

CONFIG = GCViTGlobalConfig(dim=16, blocks=2)


def made(name, config=CONFIG):
    with seeded(0):
        return build(name, config, torch.Size((1, 28, 28)), 10)


@pytest.mark.parametrize("config", [GCViTGlobalConfig(), CONFIG])
def test_global_queries_cost_no_more_with_their_generator(config):
    networks = {name: made(name, config) for name in CONTENDERS}
    parameters = {name: sum(p.numel() for p in n.parameters()) for name, n in networks.items()}
    macs = {name: total_macs(network, (1, 1, 28, 28)) for name, network in networks.items()}
    blocks = config.blocks // 2
    # of each block that lacks it a linear map of queries with its bias; of the generator all
    generated = config.dim**2 + 9 * config.dim + 2 * config.dim * (config.dim // 4)
    assert parameters[LOCAL] - parameters[GLOBAL] == blocks * (config.dim**2 + config.dim) - generated
    assert parameters[SHIFTED] == parameters[LOCAL]
    if config.blocks == 4:
        assert parameters[GLOBAL] < parameters[LOCAL]
        assert macs[GLOBAL] < macs[LOCAL] <= macs[SHIFTED]


def test_what_a_position_is_made_of():
    """Of 14 x 14: its window of 7 x 7 alone; past its edge where windows are shifted; all by a query."""
    seen = {}
    for name in CONTENDERS:
        network, x = made(name).double(), torch.randn(1, 1, 28, 28).double().requires_grad_()
        (grad,) = torch.autograd.grad(network.forward_features(x)[0, 7, 7].square().sum(), x)
        seen[name] = (grad.reshape(14, 2, 14, 2).abs().amax((1, 3)) > 0).sum().item()
    assert seen == {LOCAL: 49, SHIFTED: 196, GLOBAL: 196}


def test_a_gain_that_is_paid_for_does_not_count():
    assert ABLATION.verdict(ABLATION.made_up(1.0)).word == "held"
    assert ABLATION.verdict(ABLATION.made_up(1.0, macs=3.1)).word == "not seen"
    assert ABLATION.verdict(ABLATION.made_up(-1.0)).word == "not seen"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seeds": 0}, "seeds must be at least 1, got 0"),
        ({"dim": 24}, "dim must be a multiple of 16, got 24"),
        ({"blocks": 1}, "blocks=1 of window=7 have no second block"),
        ({"window": 1}, "blocks=4 of window=1 have no second block or no window"),
        ({"halvings": 0}, "halvings must be at least 1, got 0"),
        ({"rates": (1e-3, 1e-3)}, "rates must be positive and differ"),
    ],
)
def test_what_cannot_be_tried_is_refused(options, says):
    with pytest.raises(InvalidInput, match=says):
        GCViTGlobalConfig(**options)
