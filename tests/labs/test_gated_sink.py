"""The laboratory of gates: what it measures, that networks begin alike, and its rule."""

import torch

from qna.labs.gated_sink.config import GatedSinkConfig
from qna.labs.gated_sink.training import NETWORKS, looked_at
from qna.labs.gated_sink.verdict import made_up, verdict
from qna.labs.small_vit import adapted_vit

CONFIG = GatedSinkConfig(dim=32, depth=2)
IMAGE = torch.Size((1, 28, 28))


def test_networks_begin_alike():
    states = [adapted_vit(CONFIG, IMAGE, 10, adapter, 3).state_dict() for adapter in NETWORKS.values()]
    assert all(torch.equal(state[name], t) for state in states for name, t in states[-1].items())
    assert [len(state) - len(states[-1]) for state in states] == [2, 2, 2, 0]


def test_what_the_first_token_gets_and_the_largest_activation():
    network = adapted_vit(CONFIG, IMAGE, 10, None, 0)
    images = torch.randn(3, 1, 28, 28)
    with torch.no_grad():
        for block in network.blocks:
            block.attn.qkv.weight.zero_()
            block.attn.qkv.bias.zero_()
    first, _ = looked_at(network, images)
    assert abs(first - 1 / 50) < 1e-6
    with torch.no_grad():
        for block in network.blocks:
            block.mlp.fc2.weight.zero_()
            block.attn.proj.bias.zero_()
            block.mlp.fc2.bias.zero_()
        network.blocks[1].mlp.fc2.bias[5] = -300.0
    _, largest = looked_at(network, images)
    assert 290 < largest < 310
    assert not network.blocks[0]._forward_hooks


def test_the_rule():
    assert verdict(made_up(first=-0.1)).word == "direction only"
    assert verdict(made_up(largest=0.2)).word == "not seen"
    assert verdict(made_up(right=-0.05)).word == "held"
    assert verdict({}).word == "not seen"
    assert "missing" in verdict({}).figures
