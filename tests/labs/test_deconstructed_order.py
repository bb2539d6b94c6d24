"""The laboratory of deconstructed attention: decoders are alike, data is the same, and its rule."""

import pytest
import torch

from qna._core.errors import InvalidInput
from qna.labs.deconstructed_order.config import DeconstructedOrderConfig
from qna.labs.deconstructed_order.training import (
    NAMES,
    STANDARD,
    TASKS,
    VARIANTS,
    _induction,
    _mixers,
    _text,
    build,
    measure,
)
from qna.labs.deconstructed_order.verdict import LOSS, PAIRS, made_up, verdict

CONFIG = DeconstructedOrderConfig(text_bytes=40_000, judged=32, induction_steps=2)


def test_decoders_have_equal_parameters_and_odd_layers_are_simple():
    made = {name: build(CONFIG, mixers, 257) for name, mixers in _mixers(64)}
    counts = {sum(p.numel() for p in decoder.parameters()) for decoder in made.values()}
    assert len(made) == 1 + 2 * len(VARIANTS)
    assert len(counts) == 1
    kinds = [type(block.mixer).__name__ for block in made["Non-approximate hybrid"].blocks]
    assert kinds == 2 * ["KeyOnlyAttention1d", "CausalAttention1d"]
    assert made["FixedSeqQK uniform"].text.shape == (64,)
    assert len(set(NAMES)) == 1 + 3 * len(VARIANTS)


@pytest.mark.parametrize("made", [_text, _induction])
def test_seeds_see_other_data_and_are_judged_on_the_same(made):
    (one, held, vocabulary, opening, _), (other, held_of_other, *_) = (made(CONFIG, seed) for seed in (0, 1))
    assert not torch.equal(one(0).tokens, other(0).tokens)
    assert not torch.equal(one(0).tokens, one(1).tokens)
    assert torch.equal(one(1).tokens, made(CONFIG, 0)[0](1).tokens)
    assert torch.equal(held.tokens, held_of_other.tokens)
    assert len(held.tokens) == 32
    assert int(held.tokens.max()) < vocabulary
    assert opening.shape == one(0).tokens.shape[1:]


def test_what_is_lost_is_in_bits():
    """Of a decoder that knows nothing: eight symbols and a marker are as likely."""
    _, held_out, vocabulary, _, _ = _induction(CONFIG, 0)
    decoder = build(CONFIG, "CausalAttention1d", vocabulary)
    with torch.no_grad():
        decoder.embed.weight.zero_()
    found = measure(decoder, held_out, 1.0, 4)
    assert found["train", "loss", "bits"] == pytest.approx(3.17, abs=0.01)
    # without embeddings all queries and keys are 0, and attention is even
    even = sum(torch.log(torch.arange(1.0, 25.0)).tolist())
    assert found["none", "entropy", "nats"] == pytest.approx(even, rel=1e-5)
    mlp = measure(build(CONFIG, "PositionwiseMlp1d", vocabulary), held_out, 1.0, 4)
    assert ("none", "entropy", "nats") not in mlp


def test_the_rule():
    assert len(PAIRS) == 17
    assert (STANDARD, "MLP") in PAIRS
    assert ("MLP", "Non-approximate") not in PAIRS
    assert verdict(made_up(skip=0.1)).word == "direction only"
    assert verdict(made_up(hybrid=0.11)).word == "held"
    assert verdict(made_up(hybrid=0.13)).word == "direction only"
    assert verdict(made_up(hybrid=0.7)).word == "not seen"
    # the control wins: nothing is close to what is worse than it
    assert verdict(made_up(step=-0.2)).word == "not seen"
    without = {c: {n: f for n, f in m.items() if n != STANDARD} for c, m in made_up().items()}
    assert "2 of 38 decoders are missing" in verdict(without).figures
    # order on one task alone is not enough
    half = {c: m for c, m in made_up().items() if c.startswith(TASKS[0])}
    worse = {c: m for c, m in made_up(step=-0.1).items() if c.startswith(TASKS[1])}
    assert verdict({**half, **worse}).word == "not seen"
    assert all(LOSS in figures for m in made_up().values() for figures in m.values())


def test_what_is_refused():
    with pytest.raises(InvalidInput, match="dim must be a multiple of 24, got 32"):
        DeconstructedOrderConfig(dim=32)
    with pytest.raises(InvalidInput, match="depth must be even, every other layer standard, got 3"):
        DeconstructedOrderConfig(depth=3)
