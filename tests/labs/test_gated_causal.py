"""The laboratory of gates in causal attention: what it looks at, that decoders begin alike, and its rule."""

import dataclasses

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.labs.gated_causal.config import GatedCausalConfig
from qna.labs.gated_causal.training import MIXERS, PLAIN, looked_at
from qna.labs.gated_causal.verdict import LOST, made_up, verdict
from qna.labs.small_decoder import small_decoder

CONFIG = GatedCausalConfig(dim=32, depth=2, heads=2)


def test_decoders_begin_alike():
    plain = small_decoder(CONFIG, MIXERS[PLAIN], 257, 3).state_dict()
    for name, mixers in MIXERS.items():
        state = small_decoder(CONFIG, mixers, 257, 3, like=plain).state_dict()
        gates = {f"blocks.{i}.mixer.gates.gate.weight" for i in range(2)}
        assert set(state) - set(plain) == (set() if name == PLAIN else gates)
        assert all(torch.equal(state[name], tensor) for name, tensor in plain.items())
    with pytest.raises(InvalidInput, match="gates"):
        small_decoder(CONFIG, MIXERS[PLAIN], 257, 3, like=state | {"gates": torch.zeros(1)})


def test_what_the_first_token_gets_and_the_largest_activation():
    network = small_decoder(CONFIG, MIXERS["gated"], 257, 0)
    tokens = torch.randint(257, (3, 6))
    with torch.no_grad():
        for block in network.blocks:
            block.mixer.heads.query.weight.zero_()
    first, _ = looked_at(network, tokens)
    assert first == pytest.approx(sum(1 / i for i in range(2, 7)) / 5, rel=1e-6)
    with torch.no_grad():
        network.embed.weight.zero_()
        network.embed.weight[:, 4] = -300.0
        for block in network.blocks:
            block.mixer.out.weight.zero_()
            block.mlp.down.weight.zero_()
    _, largest = looked_at(network, tokens)
    assert largest == 300.0
    assert not any(module._forward_hooks for module in network.modules())


def test_the_first_token_is_seen_through_the_attention_that_is_computed():
    """Weights of queries and keys that single the first token out give it all."""
    network = small_decoder(dataclasses.replace(CONFIG, depth=1), MIXERS[PLAIN], 257, 0)
    tokens = torch.tensor([[7, 3, 3, 3, 3]])
    with torch.no_grad():
        network.embed.weight.zero_()
        network.embed.weight[7, 0], network.embed.weight[3, 1] = 1.0, 1.0
        heads = network.blocks[0].mixer.heads
        heads.query.weight.zero_()
        heads.key.weight.zero_()
        # the slowest channels of each head, which positions turn the least
        for head in range(2):
            heads.query.weight[16 * head + 7, 1] = 50.0
            heads.key.weight[16 * head + 7, 0] = 50.0
    assert looked_at(network, tokens)[0] > 0.999


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "held"),
        ({"largest": 0.2}, "direction only"),
        ({"first": 1.0, "largest": 0.2}, "not seen"),
        ({"bits": 0.05}, "direction only"),
        ({"high": 0.001}, "not seen"),
        ({"high": -0.001}, "direction only"),
        ({"lost": 3 * LOST / 2}, "direction only"),
    ],
)
def test_the_rule(changed, word):
    assert verdict(made_up(**changed)).word == word


def test_the_highest_rate_must_not_be_the_best():
    metrics = {c: found for c, found in made_up(bits=-0.05).items() if not c.endswith("lr0.01")}
    assert verdict(metrics).word == "direction only"
    assert "missing" in verdict({}).figures


def test_one_rate_is_refused():
    with pytest.raises(InvalidInput, match="two at least"):
        GatedCausalConfig(rates=(1e-3,))
