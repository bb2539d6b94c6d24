"""The laboratory of core tokens: caches that are compared, what is scored, and its rule."""

import math

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data.text import TokenBatch
from qna.labs.cca_context.config import CcaContextConfig
from qna.labs.cca_context.networks import CORES, FULL, NETWORKS, SINKS, WINDOW, mixers_of, timed_mixers_of
from qna.labs.cca_context.verdict import made_up, verdict
from qna.labs.small_decoder import bits_per_byte, small_decoder
from qna.models.decoder import create_decoder

CONFIG = CcaContextConfig(dim=32, depth=1, heads=2)


@pytest.mark.parametrize("length", [4096, 4099])
def test_windows_keep_no_less_than_core_tokens(length):
    held = {
        name: create_decoder("decoder_pico", mixers=timed_mixers_of(CONFIG, name, length)).state_bytes(
            (1, length)
        )
        for name in NETWORKS
    }
    assert held[WINDOW] == held[SINKS]
    # one position of the window, and heads of keys are half of those of queries in core tokens
    assert held[CORES] < held[FULL] / 2
    same = {
        name: create_decoder(
            "decoder_pico", mixers=timed_mixers_of(CONFIG, name, length), kv_heads=4
        ).state_bytes((1, length))
        for name in NETWORKS
    }
    assert same[CORES] == same[WINDOW] == same[SINKS] < same[FULL] / 2


def test_all_go_on_from_the_same_weights():
    begins = small_decoder(CONFIG, mixers_of(CONFIG, FULL), 257, 0).state_dict()
    for name in NETWORKS:
        state = small_decoder(CONFIG, mixers_of(CONFIG, name), 257, 1, like=begins).state_dict()
        assert state.keys() == begins.keys()
        assert all(torch.equal(state[key], begins[key]) for key in begins)


class _Windows:
    """Two windows of which the second halves are what a network of zeros cannot know."""

    def __len__(self):
        return 2

    def batch(self, numbers, seed):
        tokens = torch.arange(8).repeat(len(numbers), 1)
        return TokenBatch(tokens, tokens + 1)


def test_bits_of_what_is_scored():
    network = small_decoder(CONFIG, mixers_of(CONFIG, FULL), 257, 0)
    with torch.no_grad():
        network.embed.weight.zero_()
    assert bits_per_byte(network, _Windows(), 5) == pytest.approx(math.log2(257), rel=1e-6)
    # the head is the embedding: all inputs are one channel, and it answers 6, 7 and 8 likelier
    with torch.no_grad():
        network.embed.weight[:, 0] = 1.0
        network.embed.weight[5:9, 0] = 1.5
        for block in network.blocks:
            block.mixer.out.weight.zero_()
            block.mlp.down.weight.zero_()
    late, whole = (bits_per_byte(network, _Windows(), 2, behind=n) for n in (4, 0))
    assert late < whole < math.log2(257) + 1
    with torch.no_grad():
        network.norm.weight.fill_(torch.nan)
    assert bits_per_byte(network, _Windows(), 2) == math.log2(257)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "held"),
        ({"time": 0.51}, "direction only"),
        ({"cache": 0.51}, "direction only"),
        ({"full": 0.1}, "direction only"),
        ({"window": -0.015}, "direction only"),
        ({"time": 1.1}, "not seen"),
        ({"window": 0.01}, "not seen"),
    ],
)
def test_the_rule(changed, word):
    assert verdict(made_up(**changed)).word == word


def test_what_is_missing_is_told():
    metrics = {case: found for case, found in made_up().items() if case.startswith("prompt")}
    assert "missing" in verdict(metrics).figures
    with pytest.raises(InvalidInput, match="sinks"):
        CcaContextConfig(sinks=600)
