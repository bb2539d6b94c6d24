"""The laboratory of memories that learn: what is asked, what decoders have, and its rule."""

import numpy as np
import pytest
import torch

from qna._core.errors import InvalidInput
from qna.data.text import UNSCORED, Drawn
from qna.labs.small_decoder import right, small_decoder
from qna.labs.titans_recall import PARTS
from qna.labs.titans_recall.config import TitansRecallConfig
from qna.labs.titans_recall.networks import ALONE, CONTEXT, FULL, NETWORKS, WINDOW, mixers_of
from qna.labs.titans_recall.verdict import made_up, verdict

CONFIG = TitansRecallConfig(dim=32, pairs=3, keys=5, length=24, window=8, chunk=4)


def test_recall_and_needle_share_their_vocabulary():
    either, generator = CONFIG.either, np.random.default_rng(0)
    assert either.recall.vocabulary == either.needle.vocabulary == either.vocabulary == 19
    seen = {"recall": 0, "needle": 0}
    for _ in range(40):
        tokens, targets = either.draw(24, generator)
        asked = targets != UNSCORED
        seen["recall" if asked.sum() == 3 else "needle"] += 1
        # values are 6 to 10 in both, and keys 1 to 5
        assert set(targets[asked]) <= set(range(6, 11))
        assert set(tokens[asked]) <= set(range(1, 6))
        for place in np.flatnonzero(asked):
            first = np.flatnonzero(tokens == tokens[place])[0]
            assert tokens[first + 1] == targets[place]
    assert min(seen.values()) > 5


def test_parts_train_every_decoder_once():
    assert sorted(name for names in PARTS.values() for name in names) == sorted(NETWORKS)


def test_windows_cannot_see_what_is_asked_and_memories_can():
    """Gradients of an answer by what was read at the beginning."""
    tokens = torch.arange(24)[None] % 19
    for name in NETWORKS:
        network = small_decoder(CONFIG, mixers_of(CONFIG, name), 19, 0)
        given = network.embed(tokens).detach().requires_grad_()
        x = given
        for block in network.blocks:
            x = block(x)
        x[0, -1].sum().backward()
        assert given.grad is not None
        assert (float(given.grad[0, 0].abs().max()) > 0) == (name != WINDOW)


def test_states_of_memories_do_not_grow():
    held = {}
    for name in NETWORKS:
        network = small_decoder(CONFIG, mixers_of(CONFIG, name), 19, 0)
        held[name] = network.state_bytes((1, 960)) - network.state_bytes((1, 96))
    assert held.pop(FULL) > 0
    assert set(held.values()) == {0}


def test_right_counts_answers():
    kind = CONFIG.either.needle
    batch = Drawn(kind, 24, 10, "held out").batch(range(10), 3)

    class Knows(torch.nn.Module):
        def forward(self, tokens):
            logits = torch.zeros(*tokens.shape, 19)
            asked = batch.targets != UNSCORED
            logits[asked, batch.targets[asked]] = 1.0
            logits[:4] = 0.0
            logits[:4, :, 0] = 1.0
            return logits

    assert right(Knows(), kind, 24, 10, 3) == pytest.approx(60.0)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({}, "held"),
        ({"needle": 20.0}, "direction only"),
        ({"gate": -75.0}, "not seen"),
        ({"gate": -74.0}, "direction only"),
        ({"memory": 15.0}, "not seen"),
        ({"less": 0.5}, "direction only"),
        ({"full": 89.0}, "not seen"),
    ],
)
def test_the_rule(changed, word):
    assert verdict(made_up(**changed)).word == word


def test_one_seed_is_no_figure():
    metrics = {case: found for case, found in made_up().items() if "seed0" in case}
    assert "missing" in verdict(metrics).figures


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"times": (2, 4)}, "times"),
        ({"depth": 1}, "depth"),
        ({"length": 8}, "6 pairs"),
        ({"window": 10}, "16"),
    ],
)
def test_what_cannot_be_is_refused(changed, said):
    with pytest.raises(InvalidInput, match=said):
        TitansRecallConfig(**changed)


def test_names_are_what_is_built():
    network = small_decoder(CONFIG, mixers_of(CONFIG, CONTEXT), 19, 0)
    assert [type(block.mixer).__name__ for block in network.blocks] == [
        "SlidingAttention1d", "MemoryAsContext1d",
    ]  # fmt: skip
    memory = small_decoder(CONFIG, mixers_of(CONFIG, ALONE), 19, 0).blocks[1].mixer
    assert (memory.depth, memory.conv, memory.momentum, memory.decay) == (1, 1, True, True)
