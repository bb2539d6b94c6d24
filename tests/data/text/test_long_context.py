"""Drawn sequences ask what they say: answers are found again by a reader of the definition, at any length."""

import numpy as np
import pytest
import torch

from qna._core.errors import InvalidInput, UnknownName
from qna.data.text import KINDS, UNSCORED, Copy, Drawn, Induction, Needle, Recall, kind_of


def many(kind, length, count=40, seed=3):
    batch = Drawn(kind, length, count).batch(range(count), seed)
    return [(t.tolist(), y.tolist()) for t, y in zip(batch.tokens, batch.targets, strict=True)]


def scored(targets):
    return [i for i, target in enumerate(targets) if target != UNSCORED]


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("more", [0, 1, 50])
def test_tokens_are_of_the_vocabulary_at_any_length(name, more):
    kind = KINDS[name]()
    length = kind.shortest + more
    for tokens, targets in many(kind, length):
        assert len(tokens) == len(targets) == length
        assert 0 <= min(tokens) <= max(tokens) < kind.vocabulary
        assert scored(targets)
        assert all(0 <= targets[i] < kind.vocabulary for i in scored(targets))


@pytest.mark.parametrize("length", [12, 13, 60])
def test_recall(length):
    kind = Recall(pairs=4, keys=6, values=5, filler=3)
    places = set()
    for tokens, targets in many(kind, length, count=100):
        known = dict(zip(tokens[:8:2], tokens[1:8:2], strict=True))
        assert len(known) == 4
        assert max(known) < 6 <= min(known.values())
        assert max(known.values()) < 11
        asked = scored(targets)
        assert sorted(tokens[i] for i in asked) == sorted(known)
        assert all(targets[i] == known[tokens[i]] for i in asked)
        assert all(tokens[i] >= 11 for i in range(8, length) if i not in asked)
        places.update(asked)
    assert places == set(range(8, length))


@pytest.mark.parametrize(("needles", "width"), [(1, 1), (1, 3), (3, 2)])
@pytest.mark.parametrize("more", [0, 1, 30])
def test_needle(needles, width, more):
    kind = Needle(keys=5, values=4, width=width, filler=3, needles=needles)
    length, places = kind.shortest + more, set()
    for tokens, targets in many(kind, length, count=250):
        marks = [i for i, token in enumerate(tokens) if token == 0]
        assert len(marks) == needles + 1
        assert marks[-1] == length - width - 1
        values = {tokens[i + 1]: tokens[i + 2 : i + 2 + width] for i in marks[:-1]}
        assert len(values) == needles
        assert scored(targets) == list(range(length - width, length))
        assert targets[-width:] == values[tokens[marks[-1] + 1]]
        # what is asked follows the answer so far
        assert tokens[length - width + 1 :] == targets[-width:-1]
        places.update(marks[:-1])
    if needles == 1 and more:
        assert min(places) == 0
        assert max(places) == length - 2 * width - 3


@pytest.mark.parametrize("length", [2, 3, 16, 17])
def test_copy(length):
    for tokens, targets in many(Copy(5), length):
        before, half = length % 2, length // 2
        assert tokens[:before] == [6] * before
        again = before + half
        assert scored(targets) == list(range(again, length))
        assert targets[again:] == tokens[before:again]
        assert tokens[again] == 5
        assert tokens[again + 1 :] == targets[again:-1]


@pytest.mark.parametrize("length", [3, 20])
def test_induction(length):
    places = set()
    for tokens, targets in many(Induction(5), length, count=200):
        first = tokens.index(5)
        assert tokens.count(5) == 2
        assert tokens[-1] == 5
        assert scored(targets) == [length - 1]
        assert targets[-1] == tokens[first + 1]
        places.add(first)
    assert places == set(range(length - 2))


def test_a_sequence_is_a_function_of_seed_length_and_number():
    drawn = Drawn(Recall(), 64, 100)
    whole, part = drawn.batch(range(10), 5), drawn.batch([7, 3], 5)
    assert torch.equal(whole.tokens[[7, 3]], part.tokens)
    assert torch.equal(whole.targets[[7, 3]], part.targets)
    assert not torch.equal(whole.tokens, drawn.batch(range(10), 6).tokens)
    assert len(np.unique(drawn.batch(range(100), 5).tokens, axis=0)) == 100
    assert len(drawn) == 100


def test_kinds_by_name():
    assert kind_of("recall") == Recall()
    assert kind_of("needle:width=3,needles=2") == Needle(width=3, needles=2)
    with pytest.raises(UnknownName, match="unknown kind of sequences 'recal'; did you mean 'recall'"):
        kind_of("recal")
    with pytest.raises(UnknownName, match="unknown option of copy 'symbol'; did you mean 'symbols'"):
        kind_of("copy:symbol=3")
    for wrong in ("copy:symbols=x", "copy:symbols", "copy:symbols=True"):
        with pytest.raises(InvalidInput, match="copy: symbols must be a number, got"):
            kind_of(wrong)
    with pytest.raises(InvalidInput, match=r"symbols must be an integer of at least 1, got 2.5"):
        kind_of("copy:symbols=2.5")
    with pytest.raises(InvalidInput, match="copy: symbols is given twice"):
        kind_of("copy:symbols=2,symbols=2")
    with pytest.raises(InvalidInput, match="symbols must be an integer of at least 1, got 0"):
        kind_of("copy:symbols=0")
    with pytest.raises(InvalidInput, match="8 pairs need as many keys, got keys=7"):
        kind_of("recall:keys=7")
    with pytest.raises(InvalidInput, match="2 needles need as many keys, got keys=1"):
        kind_of("needle:keys=1,needles=2")
    with pytest.raises(InvalidInput, match=r"needs sequences of at least 24 tokens, got 23"):
        Drawn(Recall(), 23, 1)
