"""Nats, bits per byte and right answers are counted by hand, by length, over batches and processes."""

import math

import torch

from qna.data.text import UNSCORED, TokenBatch
from qna.eval.tokens import TokenTally


def drawn(batch, length, seed=0):
    g = torch.Generator().manual_seed(seed)
    tokens = torch.randint(5, (batch, length), generator=g)
    targets = torch.randint(5, (batch, length), generator=g)
    targets[torch.rand(targets.shape, generator=g) < 0.4] = UNSCORED
    return TokenBatch(tokens, targets), torch.randn(batch, length, 5, generator=g)


def test_scores_are_counted_by_length():
    tally, parts = TokenTally((6, 9), 0.5, "cpu"), []
    for seed, (batch, length) in enumerate(((3, 6), (2, 9), (4, 6))):
        one, logits = drawn(batch, length, seed)
        tally.add(logits, one)
        parts.append((one, logits))
    for found, chosen in zip(tally.scores().lengths, ((0, 2), (1,)), strict=True):
        nats, right, scored = 0.0, 0, 0
        for number in chosen:
            (_, targets), logits = parts[number]
            for b in range(len(targets)):
                for i in range(targets.shape[1]):
                    if targets[b, i] != UNSCORED:
                        nats -= math.log(float(logits[b, i].softmax(-1)[targets[b, i]]))
                        right += int(logits[b, i].argmax()) == int(targets[b, i])
                        scored += 1
        assert found.sequences == sum(len(parts[n][0].tokens) for n in chosen)
        assert found.scored == scored
        assert abs(found.loss - nats / scored) < 1e-5
        assert found.right == right / scored
        assert abs(found.bits_per_byte - nats / scored / math.log(2) * 0.5) < 1e-5
    assert tally.scores().first.length == 6


def test_processes_are_summed():
    whole, halves = TokenTally((6,), None, "cpu"), [TokenTally((6,), None, "cpu") for _ in range(2)]
    for seed in range(4):
        batch, logits = drawn(3, 6, seed)
        whole.add(logits, batch)
        halves[seed % 2].add(logits, batch)
    halves[0].reduce(lambda t: t + halves[1].sums, lambda items: items)
    assert halves[0].scores() == whole.scores()
    assert whole.scores().first.bits_per_byte is None


def test_a_length_without_sequences_has_no_scores():
    scores = TokenTally((6,), 1.0, "cpu").scores()
    assert scores.first.scored == 0
    assert math.isnan(scores.first.loss)
